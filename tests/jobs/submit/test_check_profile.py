"""Checks of a profile against a cluster. Slurm's text is as 22.05 and 23.11 print it."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from jobs.profiles.schema import Resources
from jobs.slurm.cluster import (
    ASSOC_FIELDS,
    QOS_FIELDS,
    Partition,
    Site,
    parse_nodes,
    parse_partitions,
    parse_rows,
)
from jobs.submit.check_profile import Finding, check_stage
from jobs.submit.check_profile.sbatch_check import parse_test_only
from jobs.submit.check_profile.whole_nodes import idle_gpus

PARTITIONS = """\
PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES QoS=N/A DefaultTime=02:00:00 \
MaxTime=1-00:00:00 MaxCPUsPerNode=UNLIMITED Nodes=g[1-3] OverSubscribe=NO State=UP MaxMemPerNode=UNLIMITED
PartitionName=whole AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=NO QoS=N/A DefaultTime=NONE \
MaxTime=UNLIMITED Nodes=g[1-2] OverSubscribe=EXCLUSIVE State=UP MaxMemPerNode=UNLIMITED
PartitionName=cpu AllowGroups=staff AllowAccounts=rich AllowQos=long Default=NO QoS=partqos DefaultTime=NONE \
MaxTime=10 Nodes=c1 OverSubscribe=NO State=DOWN DefMemPerCPU=2000 MaxMemPerCPU=4000
"""
NODES = """\
gpu|g1|idle|64|500000|gpu:h100:8(S:0-1),lscratch:900|h100,ib
gpu|g2|mixed|64|500000|gpu:h100:8(S:0,1)|h100,ib
gpu|g3|drained*|32|250000|gpu:a100:4|a100
whole|g1|idle|64|500000|gpu:h100:8(S:0-1),lscratch:900|h100,ib
whole|g2|mixed|64|500000|gpu:h100:8(S:0,1)|h100,ib
cpu|c1|idle|128+|256000+|(null)|(null)
a line of another kind
"""
ASSOC = "\n".join(
    "|".join(row)
    for row in (
        ("root", "", "", "normal", "", "", "", "", "", "", "gres/gpu=6", ""),
        ("lab", "", "root", "normal", "", "", "", "", "", "", "", ""),
        ("lab", "ada", "", "normal,long", "normal", "50", "", "5", "", "cpu=32", "", "12:00:00"),
        ("rich", "", "root", "normal", "", "", "", "", "", "", "", ""),
        ("rich", "bob", "", "normal", "", "", "", "", "", "", "", ""),
    )
)
QOS = "normal||||||||gres/gpu=4|||\nlong|||30||||||||\npartqos|||||||||||00:30:00\n"


def site(**changes: Any) -> Site:
    known: dict[str, Any] = {
        "user": "ada",
        "groups": frozenset({"students"}),
        "settings": {"AccountingStorageEnforce": "associations,limits", "MaxArraySize": "1001", "MaxJobCount": "9000"},
        "partitions": parse_partitions(PARTITIONS),
        "nodes": parse_nodes(NODES),
        "associations": parse_rows(ASSOC, ASSOC_FIELDS),
        "qos": parse_rows(QOS, QOS_FIELDS),
        "default_account": "lab",
        "reservations": frozenset({"course"}),
    }
    return Site(**known | changes)


def findings(
    resources: Resources, there: Site | None = None, hosts: Mapping[str, frozenset[str] | None] | None = None
) -> list[Finding]:
    return list(check_stage("embed", resources, there or site(), hosts or {}))


def refused(resources: Resources, **more: Any) -> dict[str, str]:
    """What is refused: the findings and what to write instead."""
    found = defaultdict(str)
    for one in findings(resources, **more):
        if one.level == "refused":
            found[one.what] += f"{one.actual} -> {one.key}: {one.fix}\n"
    return found


FITS = Resources(partition="gpu", gres="gpu:h100:1", cpus=8, mem=60_000, time=600)


def test_a_profile_that_fits_has_nothing_refused() -> None:
    found = findings(FITS)
    assert {one.level for one in found} <= {"ok", "note"}
    assert [one.actual for one in found if one.what == "nodes"] == ["2 of 3 nodes of gpu fit"]


def test_cpus_and_states_of_nodes_are_read() -> None:
    assert [node.cpus for node in parse_nodes(NODES)] == [64, 64, 32, 64, 64, 128]
    assert [node.takes_jobs for node in parse_nodes(NODES)][:3] == [True, True, False]


@pytest.mark.parametrize(
    ("changes", "what", "found"),
    [
        ({"partition": "gpx"}, "partition", 'no partition of this name -> partition: did you mean "gpu"? there are'),
        ({"time": 2000}, "time", "gpu has MaxTime 1-00:00:00 -> time: at most 1440"),
        ({"gres": "gpu:h100:9"}, "gpus", "nodes of gpu have at most 8 -> gres: at most 8"),
        ({"gres": "gpu:h200:1"}, "gpus", 'no GPUs of type h200 -> gres: gres = "gpu:a100:1" or "gpu:h100:1"'),
        ({"gres": "gpu:h100:1,disk:5"}, "gres", "no node of gpu has disk"),
        ({"gres": "gpu:a100:1,lscratch:5"}, "nodes", "no node of gpu has all of it -> "),
        ({"cpus": 65}, "cpus", "nodes have at most 64 in gpu -> cpus: at most 64"),
        ({"mem": 500_001}, "mem", "the largest node has 500000 MB in gpu -> mem: at most 500000"),
        ({"constraint": "h200"}, "constraint", "no node of gpu has h200 -> constraint: features there: a100, h100, ib"),
        ({"constraint": "h100&a100"}, "constraint", "no node of gpu has all of them"),
        ({"account": "rich"}, "account", "ada does not belong to it -> account: one of lab"),
        ({"account": "none"}, "account", "there is no such account -> account: one of lab"),
        ({"qos": "urgent"}, "qos", "there is no such QOS"),
        ({"qos": "partqos"}, "qos", "account lab may not use it -> qos: one of long, normal"),
        ({"time": 721}, "time", "account lab, user ada has MaxWall 12:00:00 -> time: at most 720"),
        ({"cpus": 33}, "cpus", "account lab, user ada has MaxTRES cpu=32 -> cpus: at most 32"),
        ({"gres": "gpu:h100:5"}, "gpus", "QOS normal has MaxTRESPU gres/gpu=4 -> gpus: at most 4"),
        ({"reservation": "curse"}, "reservation", 'no reservation of this name -> reservation: did you mean "course"?'),
    ],
)
def test_what_the_cluster_lacks_is_refused_with_the_fix(changes: dict[str, Any], what: str, found: str) -> None:
    assert found in refused(replace(FITS, **changes))[what]


def test_a_partition_that_is_not_allowed_is_refused() -> None:
    all_findings = list(findings(Resources(partition="cpu", time=10)))
    assert ("warning", "cpu is DOWN") in [(one.level, one.actual) for one in all_findings]
    found = [one.actual for one in all_findings if one.level == "refused"]
    assert found == ["cpu has AllowQos=long", "cpu has AllowAccounts=rich", "only for groups staff"]
    there = site(groups=frozenset({"staff"}), settings={"AccountingStorageEnforce": "none"})
    found = [
        one.actual for one in findings(Resources(partition="cpu", qos="long", time=10), there) if one.level == "refused"
    ]
    assert found == []


def test_of_two_partitions_one_that_takes_the_job_is_enough() -> None:
    levels = {(one.actual, one.level) for one in findings(Resources(partition="cpu,gpu", cpus=1, mem=100, time=10))}
    assert ("cpu is DOWN", "warning") in levels
    assert not [level for _, level in levels if level == "refused"]


def test_a_partition_without_gpus_is_refused_naming_others() -> None:
    assert "cpu has no GPUs -> partition: one of gpu, whole" in refused(Resources(partition="cpu", gpus=1))["gpus"]


def test_a_profile_without_a_time_gets_the_partitions() -> None:
    found = {one.actual for one in findings(Resources(partition="gpu")) if one.what == "time"}
    assert found == {"the limit is 2:00:00, gpu's DefaultTime"}
    found = {one.actual for one in findings(Resources(partition="cpu")) if one.what == "time"}
    assert found == {"the limit is 0:10:00, cpu's MaxTime"}


def test_memory_over_the_limit_per_cpu_names_the_cpus_needed() -> None:
    found = {
        one.level: one.fix for one in findings(Resources(partition="cpu", cpus=2, mem=12_000)) if one.what == "mem"
    }
    assert found == {"warning": "at most 8000, or cpus = 3: Slurm would allocate 3 CPUs for it"}


def test_nodes_of_a_list_must_be_there_and_be_one() -> None:
    wanted = Resources(partition="gpu", nodelist="g[1-2]", exclude="g9")
    hosts = {"g[1-2]": frozenset({"g1", "g2"}), "g9": frozenset({"g9"})}
    found = refused(wanted, hosts=hosts)
    assert "Slurm gives each task all 2 of these nodes" in found["nodelist"]
    assert "no such nodes: g9" in found["exclude"]
    assert (
        "c1 not in gpu"
        in refused(Resources(partition="gpu", nodelist="c1"), hosts={"c1": frozenset({"c1"})})["nodelist"]
    )


@pytest.mark.parametrize(
    ("resources", "exclusive", "idle"),
    [
        (Resources(gpus=1), True, "7 of 8 GPUs would idle in every task of 1"),
        (Resources(gpus=4), True, "4 of 8"),
        (Resources(gpus=8), True, None),
        (Resources(gpus=1), False, None),
        (Resources(gpus=1, exclusive=True), False, "exclusive = true takes whole nodes"),
        (Resources(), True, None),
    ],
)
def test_gpus_that_a_whole_node_would_leave_idle_are_counted(
    resources: Resources, exclusive: bool, idle: str | None
) -> None:
    partition = Partition("p", {"OverSubscribe": "EXCLUSIVE" if exclusive else "NO"})
    found = idle_gpus(resources, partition, [node for node in parse_nodes(NODES) if node.partition == "whole"])
    assert (idle in (found or "")) if idle else found is None


def test_one_gpu_on_whole_nodes_is_refused_naming_gpus_per_job() -> None:
    found = refused(Resources(partition="whole", gpus=1))["exclusive"]
    assert "nodes have 8 GPUs and partition whole gives whole nodes" in found
    assert "gpus_per_job: gpus_per_job = 8 with gpus = 8 gives one task 8 workers" in found


def test_limits_give_the_shards_that_can_be_submitted_and_run() -> None:
    found = {one.what: one.actual for one in findings(FITS)}
    assert found["shards"] == "at most 47, with nothing else queued (MaxSubmit of account lab, user ada is 50)"
    assert found["at once"].startswith("at most 4 shards (MaxTRESPU gres/gpu=4 of QOS normal)")
    found = {one.what: one.actual for one in findings(replace(FITS, qos="long"))}
    assert "at most 27" in found["shards"]
    assert found["at once"].startswith("at most 5 shards (MaxJobs 5 of account lab, user ada)")
    in_pairs = replace(FITS, qos="long", gres="gpu:h100:2", gpus_per_job=2)
    found = {one.what: one.actual for one in findings(in_pairs)}
    assert "at most 54" in found["shards"]
    assert found["at once"].startswith("at most 6 shards (GrpTRES gres/gpu=6 of account root)")


def test_max_limits_of_an_account_above_do_not_apply() -> None:
    """Slurm passes them down where an account sets none, and sacctmgr shows them there. Grp limits count upwards."""
    above = {"MaxWall": "01:00:00", "MaxTRES": "cpu=1", "MaxJobs": "1", "GrpTRES": "cpu=4"}
    rows = [
        {"Account": "faculty", **above},
        {"Account": "lab", "ParentName": "faculty"},
        {"Account": "lab", "User": "ada"},
    ]
    refusals = refused(FITS, there=site(associations=rows))
    assert refusals.keys() == {"cpus", "at once"}
    assert refusals["cpus"] == "account faculty has GrpTRES cpu=4 -> cpus: at most 4\n"
    assert refusals["at once"].startswith("at most 0 shards (GrpTRES cpu=4 of account faculty)")


def test_a_cluster_without_arrays_takes_no_shard() -> None:
    (shards,) = [one for one in findings(FITS, site(settings={"MaxArraySize": "0"})) if one.what == "shards"]
    assert (shards.level, shards.actual) == ("refused", "at most 0, with nothing else queued (MaxArraySize)")


def test_tasks_that_cannot_fill_a_node_are_noted() -> None:
    (found,) = [
        one for one in findings(Resources(partition="gpu", gres="gpu:h100:1", cpus=16, mem=1)) if one.what == "cpus"
    ]
    assert (found.level, found.actual) == ("note", "a node of 8 GPUs has 64, enough for 4 tasks")


def test_without_accounting_nothing_is_refused_for_it() -> None:
    bare = site(associations=None, qos=None, default_account="", settings={})
    assert {one.level for one in findings(FITS, bare)} <= {"ok", "note"}


def test_where_sinfo_and_sacctmgr_say_nothing_the_rest_is_checked() -> None:
    bare = site(nodes=None, associations=None, qos=None)
    assert list(refused(Resources(partition="gpu", time=3000, gpus=99), there=bare)) == ["time"]


def test_a_wckey_is_required_where_it_is_enforced() -> None:
    settings = {"TrackWCKey": "Yes", "AccountingStorageEnforce": "associations,wckeys"}
    there = site(settings=settings, wckeys=frozenset({"mine"}))
    (found,) = [one for one in findings(FITS, there) if one.what == "wckey"]
    assert found.level == "warning"
    assert "did you mean" in refused(replace(FITS, wckey="mines"), there=there)["wckey"]
    (found,) = [one for one in findings(replace(FITS, wckey="x"), site()) if one.what == "wckey"]
    assert "TrackWCKey" in found.actual


@pytest.mark.parametrize(
    ("code", "text", "level", "found"),
    [
        (
            0,
            "sbatch: Job 2 to start at 2026-11-23T01:32:14 using 1 processors on nodes n1 in partition gpu\n",
            *("ok", "to start at 2026-11-23T01:32:14 using 1 processors on nodes n1 in partition gpu"),
        ),
        (
            1,
            "sbatch: error: invalid partition specified: gpx\nallocation failure: Invalid partition name specified\n",
            *("refused", "invalid partition specified: gpx; allocation failure: Invalid partition name specified"),
        ),
        (1, "", "refused", "sbatch exited with 1"),
        (0, "", "note", "sbatch accepts it without a message"),
    ],
)
def test_the_output_of_test_only_is_read(code: int, text: str, level: str, found: str) -> None:
    one = parse_test_only(code, text)
    assert (one.level, one.actual) == (level, found)


def test_gpus_that_come_with_the_node_are_not_requested() -> None:
    """On such a site sinfo shows no GPUs, and stages without GPUs may inherit the key."""
    there = site(nodes=parse_nodes("gpu|g1|idle|64|500000|(null)|(null)\ncpu|c1|idle|64|500000|(null)|(null)"))
    resources = Resources(partition="gpu", time=10, gpus_from_node=True, gpus_per_job=4)
    assert [one for one in findings(resources, there) if one.level == "refused"] == []


@pytest.mark.parametrize("constraint", ["2080ti", "v100-32g|80gb", "[2080ti*1&ib*2]", "(2080ti)"])
def test_a_feature_may_begin_with_a_digit(constraint: str) -> None:
    there = site(nodes=parse_nodes("gpu|g1|idle|64|500000|gpu:8|2080ti,v100-32g,80gb,ib"))
    resources = Resources(partition="gpu", time=10, gpus=1, constraint=constraint)
    assert [one for one in findings(resources, there) if one.level == "refused"] == []


def test_reservations_are_a_list() -> None:
    there = site(reservations=frozenset({"course", "maintenance"}))
    assert "reservation" not in {
        one.what for one in findings(replace(FITS, reservation="course,maintenance"), there) if one.level == "refused"
    }
