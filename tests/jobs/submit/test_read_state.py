"""What a run's files and the queue say, read in the order in which nothing is submitted twice or forgotten."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from embedkit.documents import RunConfig, read
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.profiles import load_profile
from jobs.records import LiveTask, LiveTasks, Submissions
from jobs.slurm import SbatchAnswer, Task
from jobs.submit import sbatch, state
from jobs.submit.chain import ChainJob
from jobs.submit.state import read_state

OF_SHARD_1 = LiveTask(Task("7", 1, "RUNNING", "None", "", ""), "embed", (1,))


def test_a_task_that_ends_between_two_looks_is_not_lost(
    damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the queue while the queue is read. Its manifest is there by then, so the manifests are read later."""
    manifest = damaged_run.shard_manifest(1)
    hidden = manifest.rename(damaged_run.path / "hidden")

    def ends(run: RunFolder) -> LiveTasks:
        hidden.rename(manifest)
        return LiveTasks()

    monkeypatch.setattr(state, "known_live", ends)
    found = read_state(damaged_run, read(damaged_run.config, RunConfig), 3)
    assert found.problems == {}
    assert found.merged


def test_a_task_that_runs_when_the_queue_is_read_counts(
    damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails a moment later: then it has no manifest, and the next command submits it."""
    damaged_run.shard_manifest(1).unlink()
    monkeypatch.setattr(state, "known_live", lambda run: LiveTasks((OF_SHARD_1,)))
    found = read_state(damaged_run, read(damaged_run.config, RunConfig), 3)
    assert set(found.problems) == {1}
    assert found.embedding == {1}


@pytest.mark.parametrize(
    ("loss", "problem"),
    [("missing", "missing"), ("shorter", "bytes, its manifest says"), ("longer", "bytes, its manifest says")],
)
def test_a_shard_whose_matrix_is_lost_is_submitted_again(
    loss: str, problem: str, damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest alone is no evidence."""
    matrix = next(damaged_run.shard(1).glob("*.safetensors"))
    if loss == "missing":
        matrix.unlink()
    else:
        matrix.write_bytes(matrix.read_bytes()[:-1] if loss == "shorter" else matrix.read_bytes() + b"1")
    monkeypatch.setattr(state, "known_live", lambda run: LiveTasks())
    found = read_state(damaged_run, read(damaged_run.config, RunConfig), 3)
    assert set(found.problems) == {1}
    assert problem in found.problems[1]
    assert not found.merged


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What `submissions.jsonl` says at each call of sbatch, by a stand-in that gives the ids 11, 12, ..."""
    calls: list[list[str]] = []

    def call(script: Path, while_waiting: object) -> SbatchAnswer:
        run = RunFolder(script.parent.parent.parent)
        calls.append([f"{line.what} {line.stage} {line.job or ''}".strip() for line in Submissions(run).read()])
        return SbatchAnswer(str(10 + len(calls)), is_certain=True)

    monkeypatch.setattr(sbatch, "call_sbatch", call)
    return calls


def submit(run: Path, stages: Sequence[str]) -> list[str]:
    jobs = [ChainJob(stage) for stage in stages]  # type: ignore[arg-type]
    return [line.job or "" for line in sbatch.submit(RunFolder(run), load_profile("cpu"), jobs, "submit")]


def test_a_line_is_there_before_sbatch_and_its_id_after(called: list[list[str]], tmp_path: Path) -> None:
    """So a job is found by its tag even if this command is killed at any moment."""
    assert submit(tmp_path, ["prepare", "merge"]) == ["11", "12"]
    first = ["asked prepare"]
    second = [*first, "submitted prepare 11", "asked merge"]
    assert called == [first, second]
    lines = [f"{line.what} {line.stage} {line.job or ''}".strip() for line in Submissions(RunFolder(tmp_path)).read()]
    assert lines == [*second, "submitted merge 12"]


def test_no_job_is_submitted_that_could_not_be_recorded(
    called: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EmbedkitError) as error:
        submit(tmp_path, ["prepare"])
    assert f"prepare was not submitted: [Errno 122] Disk quota exceeded: '{tmp_path}/submissions.jsonl'" in str(
        error.value
    )
    assert "this command submitted no job" in str(error.value)
    assert called == []
