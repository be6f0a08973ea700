"""Limits of accounts and QOS: submit refuses by the same rows that `profile check` shows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedkit.errors import EmbedkitError, UsageError
from jobs.profiles.schema import STAGES, Profile, Resources
from jobs.slurm import read_cluster
from jobs.slurm.client import Task
from jobs.slurm.cluster import ASSOC_FIELDS, QOS_FIELDS, Site, parse_partitions, parse_rows
from jobs.submit.account_limits import qos_of, submit_limits
from jobs.submit.chain import whole_chain
from jobs.submit.check_limits import check_limits
from jobs.submit.check_profile import check_stage


def rows(fields: tuple[str, ...], *values: dict[str, Any]) -> Any:
    """What sacctmgr prints, read."""
    return parse_rows("\n".join("|".join(str(row.get(field, "")) for field in fields) for row in values), fields)


ASSOCIATIONS = rows(
    ASSOC_FIELDS,
    {"Account": "root"},
    {"Account": "faculty", "ParentName": "root", "GrpSubmit": 100},
    {"Account": "lab", "ParentName": "faculty"},
    {"Account": "lab", "User": "ada", "QOS": "normal,short", "DefaultQOS": "short"},
    {"Account": "other", "ParentName": "faculty"},
    {"Account": "other", "User": "ada", "QOS": "normal", "DefaultQOS": "normal"},
)
QOS = rows(
    QOS_FIELDS,
    {"Name": "normal", "MaxSubmitPU": 50},
    {"Name": "short", "MaxSubmitPU": 10},
    {"Name": "of-gpu", "MaxSubmitPU": 30},
)
SITE = Site(
    user="ada",
    settings={"AccountingStorageEnforce": "associations,limits,qos", "MaxJobCount": "1000", "MaxArraySize": "1001"},
    partitions=parse_partitions("PartitionName=cpu Default=YES State=UP\nPartitionName=gpu QoS=of-gpu State=UP"),
    associations=ASSOCIATIONS,
    qos=QOS,
    default_account="lab",
)


def profile(resources: Resources) -> Profile:
    return Profile("site", Path("site.toml"), dict.fromkeys(STAGES, resources))


def shards_of_profile_check(resources: Resources, site: Site = SITE) -> str:
    (shards,) = [finding.actual for finding in check_stage("embed", resources, site, {}) if finding.what == "shards"]
    return shards


@pytest.fixture
def on_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "jobs.submit.check_limits.read_site", lambda **_: replace(SITE, associations=None, qos=None, default_account="")
    )
    monkeypatch.setattr("jobs.submit.check_limits.with_accounts", lambda _: SITE)


@pytest.mark.parametrize(
    ("resources", "qos", "limit", "shards"),
    [
        (Resources(), "short", "MaxSubmitPU of QOS short is 10", 7),
        (Resources(gpus=2, gpus_per_job=2), "short", "MaxSubmitPU of QOS short is 10", 14),
        (Resources(account="other"), "normal", "MaxSubmitPU of QOS normal is 50", 47),
        (Resources(qos="normal"), "normal", "MaxSubmitPU of QOS normal is 50", 47),
        (Resources(account="other", partition="gpu"), "normal", "MaxSubmitPU of QOS of-gpu is 30", 27),
    ],
)
def test_submit_and_profile_check_use_the_same_limits(
    resources: Resources, qos: str, limit: str, shards: int, on_site: None
) -> None:
    """The default QOS is that of the association, and the QOS of the partition counts too."""
    assert qos_of(resources, SITE) == qos
    assert shards_of_profile_check(resources) == f"at most {shards}, with nothing else queued ({limit})"
    per_job = resources.gpus_per_job
    check_limits(profile(resources), whole_chain(shards, 1, preflight=True, per_job=per_job), [])
    with pytest.raises(UsageError, match=f"{limit} .*: at most {shards} shards fit"):
        check_limits(profile(resources), whole_chain(shards + 1, 1, preflight=True, per_job=per_job), [])


def test_queued_tasks_count_for_their_qos_and_for_accounts_above() -> None:
    queued = [
        Task(str(job), None, "PENDING", "", "", "", account=account, qos=qos)
        for job, (account, qos) in enumerate(
            [("lab", "short"), ("lab", "normal"), ("other", "normal"), ("far", "short")]
        )
    ]
    counted = {limit.name: limit.counted(queued) for limit in submit_limits(Resources(), SITE)}
    assert counted == {
        "the cluster's MaxJobCount": 4,
        "MaxSubmitPU of QOS short": 2,
        "GrpSubmit of account faculty": 3,
    }


def test_where_limits_are_not_enforced_only_the_clusters_counts() -> None:
    site = replace(SITE, settings={"AccountingStorageEnforce": "associations", "MaxJobCount": "5"})
    assert [limit.name for limit in submit_limits(Resources(), site)] == ["the cluster's MaxJobCount"]


def test_max_limits_apply_to_the_jobs_own_account_alone() -> None:
    """Slurm counts a Max limit per association: that of an account above does not add up its accounts."""
    associations = rows(
        ASSOC_FIELDS,
        {"Account": "faculty", "MaxSubmit": 10},
        {"Account": "lab", "ParentName": "faculty", "MaxSubmit": 100},
        {"Account": "lab", "User": "ada", "MaxSubmit": 100},
        {"Account": "other", "ParentName": "faculty", "MaxSubmit": 100},
    )
    site = replace(SITE, associations=associations, qos=())
    queued = [Task(str(job), None, "PENDING", "", "", "", account="other") for job in range(90)]
    counted = {limit.name: limit.counted(queued) for limit in submit_limits(Resources(), site)}
    assert counted == {
        "the cluster's MaxJobCount": 90,
        "MaxSubmit of account lab": 0,
        "MaxSubmit of account lab, user ada": 0,
    }
    assert shards_of_profile_check(Resources(), site).startswith("at most 97,")  # not 7, of the account above


def test_a_cluster_that_hides_its_partitions_takes_a_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the partitions are is asked for GPUs that would idle, and nothing else."""

    def refuse() -> None:
        raise EmbedkitError("scontrol: Access denied")

    monkeypatch.setattr(read_cluster, "_read_partitions", refuse)
    monkeypatch.setattr(read_cluster, "_read_nodes", lambda: None)
    monkeypatch.setattr(read_cluster, "configuration", lambda: {"MaxArraySize": "1001"})
    check_limits(profile(Resources(gpus=1)), whole_chain(3, 1, preflight=True), [])
    with pytest.raises(EmbedkitError, match="Access denied"):
        read_cluster.read_site()
