"""Several GPU models in what embed may get: a warning that names them, and the setting that pins one."""

from dataclasses import replace

import pytest

from jobs.profiles.schema import Resources
from jobs.slurm.cluster import Site, parse_nodes, parse_partitions
from jobs.submit.check_profile import Finding, check_stage, mixed_gpus
from jobs.submit.check_profile.gpu_models import check_preflight_model, unknown_gpu

PARTITIONS = """\
PartitionName=gpu Default=YES State=UP
PartitionName=new State=UP
PartitionName=old State=UP
PartitionName=plain State=UP
"""
NODES = """\
gpu|g1|idle|64|500000|gpu:h100:8(S:0-1),lscratch:900|h100,ib
gpu|g2|mixed|64|500000|gpu:h100:8(S:0,1)|h100,ib
gpu|g3|drained*|32|250000|gpu:a100:4|ib,ampere
gpu|c1|idle|32|250000|(null)|(null)
new|n1|idle|64|500000|gpu:h100:8|(null)
old|o1|idle|64|500000|gpu:a100:8|(null)
plain|p1|idle|64|500000|gpu:4|A100,nvlink
plain|p2|idle|64|500000|gpu:4|V100,nvlink
"""
SITE = Site(user="ada", partitions=parse_partitions(PARTITIONS), nodes=parse_nodes(NODES))


def found(resources: Resources, site: Site = SITE, **hosts: frozenset[str]) -> list[Finding]:
    """What the check says of GPU models."""
    return [one for one in check_stage("embed", resources, site, hosts) if one.what == "gpu models"]


def fix_of(resources: Resources) -> str:
    (one,) = found(resources)
    assert one.level == "warning"
    return f"{one.key}: {one.fix}"


def test_two_models_are_named_with_their_nodes() -> None:
    (one,) = found(Resources(partition="gpu", gpus=1))
    assert one.level == "warning"
    assert one.actual == (
        "gpu has a100 (1 node) and h100 (2 nodes): merge refuses shards of different GPU models, whose vectors "
        "differ, unless --allow-mixed accepts them"
    )


def test_models_of_all_requested_partitions_count() -> None:
    (one,) = found(Resources(partition="new,old", gpus=1))
    assert one.actual.startswith("new, old has a100 (1 node) and h100 (1 node): ")
    assert not found(Resources(partition="new", gpus=1))


@pytest.mark.parametrize(
    "pinned",
    [
        {"gres": "gpu:h100:1"},
        {"gpus": 1, "constraint": "h100"},
        {"gpus": 1, "nodelist": "g1"},
        {"gpus": 1, "exclude": "g3"},
        {"sbatch": {"gpus-per-node": "a100:2"}},
        {"gpus": 0},
        {},
    ],
)
def test_a_profile_with_one_model_gets_no_warning(pinned: dict[str, object]) -> None:
    hosts = {name: frozenset({name}) for name in ("g1", "g3")}
    assert not found(replace(Resources(partition="gpu"), **pinned), **hosts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("requested", "fix"),
    [
        ({"gpus": 1}, 'gres: "gpu:a100:1" or "gpu:h100:1", instead of gpus'),
        ({"gpus_per_job": 4}, 'gres: "gpu:a100:4" or "gpu:h100:4"'),
        ({"gres": "gpu:2,lscratch:5"}, 'gres: "gpu:a100:2,lscratch:5" or "gpu:h100:2,lscratch:5"'),
        ({"sbatch": {"gpus-per-node": 2}}, 'sbatch: { gpus-per-node = "a100:2" } or { gpus-per-node = "h100:2" }'),
        ({"gpus_from_node": True}, 'constraint: "ampere" or "h100"'),
        ({"gpus_from_node": True, "partition": "new,old"}, 'exclude: "o1" leaves out a100'),
    ],
)
def test_the_fix_names_the_setting_that_pins_a_model(requested: dict[str, object], fix: str) -> None:
    resources = replace(Resources(partition="gpu"), **requested)  # type: ignore[arg-type]
    assert fix_of(resources) == fix
    assert mixed_gpus(resources, SITE) == ("warning", f"{found(resources)[0].actual}; [embed] {fix}")


def test_gpus_without_a_type_are_a_note_by_their_features() -> None:
    (one,) = found(Resources(partition="plain", gpus=1))
    assert (one.level, one.key, one.fix) == ("note", "constraint", '"A100" or "V100"')
    assert one.actual.startswith("the nodes of plain have the features A100 (1 node) and V100 (1 node). If these are ")
    assert not found(Resources(partition="plain", gpus=1, constraint="V100"))


@pytest.mark.parametrize("features", ["(null)", "nvlink", "a100,v100"])
def test_gpus_without_a_type_are_not_guessed(features: str) -> None:
    nodes = parse_nodes(f"plain|p1|idle|64|500000|gpu:4|a100\nplain|p2|idle|64|500000|gpu:4|{features}\n")
    assert not found(Resources(partition="plain", gpus=1), replace(SITE, nodes=nodes))


def test_a_model_beside_gpus_without_a_type_is_a_note() -> None:
    nodes = parse_nodes("gpu|g1|idle|64|500000|gpu:h100:4|(null)\ngpu|g2|idle|64|500000|gpu:4|(null)\n")
    (one,) = found(Resources(partition="gpu", gpus=1), replace(SITE, nodes=nodes))
    assert (one.level, one.key, one.fix) == ("note", "exclude", '"g2"')
    assert one.actual.startswith("gpu has h100 (1 node), and sinfo does not name the GPUs of g2: ")


def test_a_node_in_two_partitions_counts_once() -> None:
    nodes = parse_nodes(
        "new|n1|idle|64|500000|gpu:h100:8|(null)\nold|n1|idle|64|500000|gpu:h100:8|(null)\n"
        "old|o1|idle|64|500000|gpu:a100:8|(null)\n"
    )
    (one,) = found(Resources(partition="new,old", gpus=1), replace(SITE, nodes=nodes))
    assert one.actual.startswith("new, old has a100 (1 node) and h100 (1 node): ")


def test_preflight_on_another_model_than_embed_is_a_warning() -> None:
    embed = Resources(partition="new", gpus=1)
    assert not list(check_preflight_model(embed, embed, SITE, {}))
    (one,) = check_preflight_model(replace(embed, partition="old"), embed, SITE, {})
    assert one.level == "warning"
    assert one.actual.startswith("preflight may get a100 (1 node), and embed h100 (1 node): ")


def test_where_sinfo_fails_nothing_is_said() -> None:
    assert not found(Resources(partition="gpu", gpus=1), replace(SITE, nodes=None))


@pytest.mark.parametrize(
    ("requested", "name"),
    [
        ({"gres": "gpu:a100:1", "partition": "gpu"}, "a100"),
        ({"gpus": 1, "partition": "old"}, "a100"),
        ({"gpus": 1, "partition": "old", "gpu_model": "h100"}, ""),
        ({"gpus": 1, "partition": "new"}, ""),
        ({"gpus": 1, "partition": "gpu"}, ""),
        ({"gpus": 1, "partition": "plain"}, ""),
        ({"gres": "gpu:h100:1", "partition": "gpu"}, ""),
    ],
)
def test_a_model_without_a_built_in_curve_is_named(requested: dict[str, object], name: str) -> None:
    """By the profile, or by the only model of its partition; not where the model is not known."""
    assert unknown_gpu(Resources(**requested), SITE) == name  # type: ignore[arg-type]
    by_profile = "gres" in requested and name
    assert unknown_gpu(Resources(**requested), None) == (name if by_profile else "")  # type: ignore[arg-type]
