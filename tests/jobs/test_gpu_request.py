"""Whether a stage gets GPUs, from each way in which a site lets it request them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.gpu_request import requested_gpus, stage_settings


@pytest.mark.parametrize(
    ("settings", "gpus"),
    [
        ({}, {}),
        ({"gpus": 2}, {"": 2}),
        ({"gpus": 0}, {}),
        ({"gres": "gpu:h100:4"}, {"h100": 4}),
        ({"gres": "lscratch:100"}, {}),
        ({"gres": "lscratch:100,gpu"}, {"": 1}),
        ({"gres": "shard:2"}, {"": 1}),
        ({"gres": "mps:50"}, {"": 1}),
        ({"sbatch": {"gpus": 1}}, {"": 1}),
        ({"sbatch": {"gpus-per-node": 4}}, {"": 4}),
        ({"sbatch": {"gpus-per-node": False}}, {}),
        ({"sbatch": {"gpus-per-task": "h100:1"}}, {"h100": 1}),
        ({"sbatch": {"gpus-per-socket": "2"}}, {"": 2}),
        ({"sbatch": {"tres-per-task": "cpu=2,gres/gpu:h100:2"}}, {"h100": 2}),
        ({"sbatch": {"tres-per-task": "gres:gpu:2"}}, {"": 2}),
        ({"sbatch": {"licenses": "matlab:2"}}, {}),
        ({"gpus_from_node": True}, {"": 1}),
        ({"gpus_from_node": True, "gpus_per_job": 4}, {"": 4}),
        ({"gpus_from_node": True, "gres": "gpu:2"}, {"": 2}),
        ({"gpus_per_job": 8}, {"": 8}),
        ({"gpus_per_job": 8, "gpus": 0}, {}),
        ({"gpus_per_job": 1}, {}),
    ],
)
def test_gpus_of_a_task(settings: dict[str, Any], gpus: dict[str, int]) -> None:
    assert requested_gpus(settings) == gpus


def test_a_stage_with_its_own_request_inherits_no_other() -> None:
    tables = {
        "all": {"sbatch": {"gpus-per-node": 2, "licenses": "a"}},
        "prepare": {"gpus": 0},
        "embed": {"gres": "lscratch:1"},
        "merge": {"gres": "gpu:h100:1"},
    }
    gpus = {stage: requested_gpus(stage_settings(tables, stage)) for stage in ("prepare", "embed", "merge", "analyze")}
    assert gpus == {"prepare": {}, "embed": {"": 2}, "merge": {"h100": 1}, "analyze": {"": 2}}
    assert stage_settings(tables, "merge")["sbatch"] == {"licenses": "a"}
    assert requested_gpus(stage_settings({"all": {"gpus": 1}, "embed": {"sbatch": {"gpus": 4}}}, "embed")) == {"": 4}


INHERITED = [
    {"gpus": 1},
    {"gpus": 0},
    {"gres": "gpu:h100:2(S:0,1)"},
    {"gres": "shard:2"},
    {"sbatch": {"gpus-per-node": 2}},
    {"sbatch": {"tres-per-task": "cpu=2,gres/gpu:h100:2"}},
]


@pytest.mark.parametrize("base", INHERITED)
def test_gpus_from_the_node_replace_an_inherited_request(base: dict[str, Any]) -> None:
    found = stage_settings({"all": base, "embed": {"gpus_from_node": True, "gpus_per_job": 4}}, "embed")
    left = {key: value for key, value in found.items() if value}
    assert left == {"gpus_from_node": True, "gpus_per_job": 4}


def test_gpus_from_the_node_leave_other_resources() -> None:
    base = {"gres": "lscratch:9,gres/gpu:h100:2(S:0,1),nvme", "sbatch": {"tres-per-task": "cpu=2", "hint": "x"}}
    found = stage_settings({"all": base, "embed": {"gpus_from_node": True}}, "embed")
    assert (found["gres"], found["sbatch"]) == ("lscratch:9,nvme", base["sbatch"])


@pytest.mark.parametrize("own", INHERITED)
def test_a_request_replaces_inherited_gpus_from_the_node(own: dict[str, Any]) -> None:
    found = stage_settings({"all": {"gpus_from_node": True}, "embed": own}, "embed")
    assert not found.get("gpus_from_node")
    assert requested_gpus(found) == requested_gpus(own)


@pytest.mark.parametrize("own", [{"gres": "lscratch:9"}, {"sbatch": {"gpus": False}}, {"gpus_per_job": 4}])
def test_what_requests_no_gpus_keeps_those_from_the_node(own: dict[str, Any]) -> None:
    assert stage_settings({"all": {"gpus_from_node": True}, "embed": own}, "embed")["gpus_from_node"]


def test_set_up_can_ask_without_any_package() -> None:
    root = Path(__file__).parents[2]
    code = "import jobs.gpu_request, sys; print(sorted({'msgspec', 'click', 'submitit'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
