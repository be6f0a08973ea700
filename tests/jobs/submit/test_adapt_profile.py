"""Which nodes a rerun excludes: where the canary moved (by code or, in older runs, by message), or the GPU differs."""

import os
from pathlib import Path

import msgspec
import pytest

from embedkit.documents.codec import sealed
from embedkit.errors import CanaryMoved, EngineDiffers, GpuDiffers, GpuHeld
from embedkit.job import JobContext
from embedkit.run import RunFolder
from jobs.profiles import sbatch_parameters
from jobs.profiles.load import load_profile
from jobs.profiles.schema import Resources
from jobs.records.attempts import Attempts
from jobs.records.submission import new_submission
from jobs.records.submissions import Submissions
from jobs.slurm import JobRecord
from jobs.submit.adapt_profile import _nodes_with_moved_canary, adapt_profile
from jobs.submit.submit_missing import _failures


@pytest.mark.parametrize(
    ("why", "code", "excluded"),
    [
        ("the GPU gives different vectors", CanaryMoved.code, {"n3"}),
        ("shard 1: the canary's vectors moved by 0.01", "", {"n3"}),  # as runs before 0.2.0 have it
        ("CUDA error", "", set()),
        ("model: x; the canary's vectors moved", "preflight-failed", set()),
    ],
)
def test_nodes_are_excluded_by_error_code_or_old_message(
    why: str, code: str, excluded: set[str], run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedkit.job._current", JobContext(name="7_1", id="7", node="n3"))
    attempts = Attempts(run, "embed", 1)
    attempts.add("started", 0, "")
    attempts.add("failed", 0, why, code)
    assert _nodes_with_moved_canary(run, [1, 2]) == excluded


def failed_on(run: RunFolder, node: str, code: str, monkeypatch: pytest.MonkeyPatch, shard: int | None = 1) -> None:
    """Record an attempt at a shard, or at the preflight (shard None), that failed on a node."""
    monkeypatch.setattr("embedkit.job._current", JobContext(name=f"{node}_1", id="7", node=node))
    attempts = Attempts(run, "preflight" if shard is None else "embed", shard)
    attempts.add("started", 0, "")
    attempts.add("failed", 0, f"{node} has GPU A100", code)


def excluded(run: RunFolder, monkeypatch: pytest.MonkeyPatch, avoid_gpus: bool = True) -> tuple[str | None, str | None]:
    """What embed and preflight exclude in a rerun of shard 1."""
    monkeypatch.setattr("jobs.submit.adapt_profile.history", lambda jobs: None)
    if not run.submissions.exists():
        asked = new_submission("embed", "0-2", "", "submit", "test", Resources())
        Submissions(run).add(msgspec.structs.replace(asked, what="submitted", job="7"))
    adapted, _ = adapt_profile(run, load_profile("test"), [1], True, avoid_gpus)
    return adapted.stages["embed"].exclude, adapted.stages["preflight"].exclude


def test_nodes_with_a_different_gpu_are_excluded(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    failed_on(run, "n3", GpuDiffers.code, monkeypatch)
    failed_on(run, "n4", GpuDiffers.code, monkeypatch)
    failed_on(run, "n5", GpuDiffers.code, monkeypatch, shard=None)
    assert excluded(run, monkeypatch) == ("n3,n4,n5", "n3,n4,n5")
    assert excluded(run, monkeypatch, avoid_gpus=False) == (None, None)  # with --allow-mixed
    run.preflight.touch()
    os.utime(run.preflight, (2e9, 2e9))  # a newer preflight may be of the other model
    assert excluded(run, monkeypatch) == (None, None)


def test_without_mem_a_rerun_says_that_it_cannot_raise_it(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site.toml").write_text("[embed]\ncpus = 2\n")
    site = load_profile(str(tmp_path / "site.toml"))
    assert "mem" not in sbatch_parameters(site.stages["embed"])
    asked = new_submission("embed", "0-2", "", "submit", "test", site.stages["embed"])
    Submissions(run).add(msgspec.structs.replace(asked, what="submitted", job="7"))
    ended = [JobRecord(job="7", index=1, state="OUT_OF_MEMORY", exit_code="0:125", node="n1")]
    monkeypatch.setattr("jobs.submit.adapt_profile.history", lambda jobs: ended)
    adapted, lines = adapt_profile(run, site, [0, 1, 2], True)
    assert adapted.stages == site.stages
    assert lines[0].startswith("nothing for shards 1, which ran out of memory: the profile sets no mem, so the site")


def test_nodes_with_a_held_gpu_are_excluded_for_a_day(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.submit.adapt_profile.partition_nodes", lambda _: {"g7", "g8", "n1"})
    failed_on(run, "g7", GpuHeld.code, monkeypatch)
    failed_on(run, "n1", "", monkeypatch)
    failed_on(run, "g8", GpuHeld.code, monkeypatch, shard=None)
    assert excluded(run, monkeypatch) == ("g7,g8", "g7,g8")
    assert excluded(run, monkeypatch, avoid_gpus=False) == ("g7,g8", "g7,g8")  # also with --allow-mixed
    monkeypatch.setattr("jobs.submit.adapt_profile.partition_nodes", lambda _: {"g7", "g8"})
    assert excluded(run, monkeypatch) == (None, None)  # no other node is left
    monkeypatch.setattr("jobs.submit.adapt_profile.HELD_SECONDS", -60.0)
    assert excluded(run, monkeypatch) == (None, None)


@pytest.mark.parametrize(
    ("exit_code", "why", "more"),
    [
        ("0:9", "", True),
        ("0:24", "", False),  # SIGXCPU
        ("1:0", "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB", False),
    ],
)
def test_only_a_lack_of_memory_gives_more_memory(
    exit_code: str, why: str, more: bool, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = new_submission("embed", "0-2", "", "submit", "test", Resources(mem=9000))
    Submissions(run).add(msgspec.structs.replace(asked, what="submitted", job="7"))
    (run.logs / "embed-00001.log").write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch\n")
    attempts = Attempts(run, "embed", 1)
    attempts.add("started", 0, "")
    if why:
        attempts.add("failed", 0, why)
    record = JobRecord(job="7", index=1, state="FAILED", exit_code=exit_code)
    monkeypatch.setattr("jobs.submit.adapt_profile.history", lambda jobs: [record])
    adapted, _ = adapt_profile(run, load_profile("test"), [1], more_memory=True)
    assert (adapted.stages["embed"].mem == 13500) == more


def test_changed_versions_exclude_no_node(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    failed_on(run, "n3", EngineDiffers.code, monkeypatch)
    assert excluded(run, monkeypatch) == (None, None)
    (line,) = _failures(run, [1, 2])
    assert line.startswith("shard 1: n3 has GPU A100 (the environment has changed, so no node is excluded: ")


def test_events_of_older_versions_have_no_error_code(run: RunFolder) -> None:
    attempts = Attempts(run, "embed", 1)
    attempts.add("started", 0, "")
    path = run.logs / "embed-00001.attempts.jsonl"
    (line,) = path.read_bytes().splitlines(keepends=True)
    seal_length = len(b'"seal":"",') + 64
    older = (line[:1] + line[1 + seal_length :]).replace(b'"error_code":"",', b"")
    assert b"error_code" not in older
    path.write_bytes(sealed(older, b'"seal":"%s",'))
    (attempt,) = attempts.attempts()
    assert (attempt.error_code, attempt.started.error_code) == ("", "")
    newer = older.replace(b'"done"', b'"added":1,"done"')
    path.write_bytes(path.read_bytes() + sealed(newer, b'"seal":"%s",'))
    assert len(attempts.attempts()) == 1  # a line of a newer version is skipped, not an error


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.logs.mkdir()
    return folder
