"""GPUs in Slurm's text. A profile, sinfo and sacct are read by the same parser, so they agree."""

import pytest

from jobs.gres import gpus_in_gres, gpus_in_tres, gres_names, tres_amounts
from jobs.profiles.schema import Resources
from jobs.slurm.cluster import parse_nodes


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:h100:8(S:0,1),lscratch:900", {"h100": 8}),
        ("gpu:2", {"": 2}),
        ("gpu", {"": 1}),
        ("gpu:h100", {"h100": 1}),
        ("gpu:a100:3,gpu:2g.10gb:4(S:0)", {"a100": 3, "2g.10gb": 4}),
        ("gpu:h100:1,gpu:h100:2", {"h100": 3}),
        ("gres/gpu:h100:2", {"h100": 2}),
        ("gres/gpu=2,lscratch:5", {"": 2}),
        ("lscratch:5", {}),
        ("(null)", {}),
        ("N/A", {}),
        ("", {}),
    ],
)
def test_a_profile_and_a_node_have_the_same_gpus(gres: str, gpus: dict[str, int]) -> None:
    assert gpus_in_gres(gres) == gpus
    requested = Resources(gres=gres)
    assert (requested.gpus_by_type, requested.gpu_count) == (gpus, sum(gpus.values()))
    (node,) = parse_nodes(f"p|n1|idle|8|1000|{gres}|(null)")
    assert (node.gpus, node.gpu_count) == (gpus, sum(gpus.values()))


@pytest.mark.parametrize(
    ("tres", "gpus"),
    [
        ("billing=8,cpu=8,gres/gpu=1,gres/gpu:h100=1,mem=64G,node=1", 1),
        ("cpu=8,gres/gpu:a100=1,gres/gpu:h100=2", 3),
        ("cpu=8,gres/gpu=0,gres/gpu:h100=2", 0),
        ("cpu=8,gres/gpumem=4", 0),
        ("", 0),
    ],
)
def test_gpus_of_a_tres_list_are_its_total_or_the_sum_of_types(tres: str, gpus: int) -> None:
    assert gpus_in_tres(tres) == gpus


def test_amounts_of_a_tres_list_have_memory_in_mb() -> None:
    amounts = {"cpu": 64, "gres/gpu": 8, "gres/gpu:h100": 8, "mem": 2048, "node": 1}
    assert tres_amounts("cpu=64,gres/gpu=8,gres/gpu:h100=8,mem=2G,node=1") == amounts


def test_no_gpus_are_not_a_type_and_other_resources_are_named() -> None:
    assert Resources(gpus=0).gpus_by_type == Resources(gres="gpu:0").gpus_by_type == {}
    assert Resources(gpus=2).gpus_by_type == {"": 2}
    assert Resources(gres="gpu:1,lscratch:100,gres/disk=5").gres_without_gpus == {"lscratch", "disk"}
    assert gres_names("gpu:h100:8(S:0-1),lscratch:900") == {"gpu", "lscratch"}
