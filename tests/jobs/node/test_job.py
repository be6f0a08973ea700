"""Which shards a job has, and its exit record: it has the error's code, also where a worker raised the error."""

import logging
import signal
import socket
from pathlib import Path

import pytest

from embedkit.errors import CanaryMoved, EmbedkitError, PreflightFailed
from embedkit.job import JobContext
from embedkit.run import RunFolder
from jobs.node import job as job_module
from jobs.node.node_folders import folder_prefix
from jobs.node.slurm_job import SlurmJob
from jobs.node.worker import embed_in_worker, error_code_of
from jobs.records.attempts import Attempts


@pytest.mark.parametrize(
    ("error", "why", "code"),
    [
        (EmbedkitError("row 7"), "row 7", ""),
        (PreflightFailed("model: x"), "model: x", "preflight-failed"),
        (RuntimeError("CUDA error"), "RuntimeError: CUDA error", ""),
    ],
)
def test_exit_record_has_the_errors_code(
    error: Exception, why: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    run.logs.mkdir()
    (tmp_path / "analysis").mkdir()
    monkeypatch.setattr("jobs.node.signals.WAIT_SECONDS", 0.0)

    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr("jobs.node.slurm_job.analyze_task", fail)
    assert SlurmJob("analyze", run).run() == 1
    (attempt,) = Attempts(run, "analyze").attempts()
    assert (attempt.outcome, attempt.why, attempt.error_code) == ("failed", why, code)


@pytest.mark.parametrize(("error", "code"), [(CanaryMoved("moved"), "canary-moved"), (EmbedkitError("row 7"), "")])
def test_worker_passes_on_its_error_code(
    error: Exception, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("jobs.node.worker.embed_task", fail)
    with pytest.raises(type(error)):
        embed_in_worker(tmp_path, tmp_path, False, [3])
    assert error_code_of(tmp_path, 3) == code
    assert error_code_of(tmp_path, 4) == ""


def test_stages_without_an_engine_clean_the_node_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    run.logs.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    monkeypatch.setattr("jobs.node.slurm_job.analyze_task", lambda _: None)
    folder = tmp_path / "node" / f"{folder_prefix()}task-{socket.gethostname()}+{2**22 + 1}+0123456789ab"
    folder.mkdir(parents=True)
    assert SlurmJob("analyze", run).run() == 0
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "index", "shards"),
    [
        (["--shard", "17"], None, (17,)),
        ([], 17, (17,)),
        (["--shards", "16-18", "--per-job", "4"], None, (16, 17, 18)),
        (["--shards", "3,9,16-18", "--per-job", "2"], 16, (16, 17)),
    ],
)
def test_shards_are_named_or_follow_from_the_array_index(
    arguments: list[str], index: int | None, shards: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, ...]] = []
    monkeypatch.setattr(job_module, "log_to_stderr", lambda: None)
    monkeypatch.setattr(job_module, "enter_job", lambda _: None)
    monkeypatch.setattr(SlurmJob, "run", lambda job: made.append(tuple(getattr(job, "_open", [job._shard]))) or 0)
    monkeypatch.setattr("sys.argv", ["job", "embed", str(tmp_path), *arguments])
    for name, value in (("SLURM_ARRAY_JOB_ID", "9"), ("SLURM_ARRAY_TASK_ID", str(index))):
        monkeypatch.delenv(name, raising=False)
        if index is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="0"):
        job_module.main()
    assert made == [shards]


def test_embed_without_a_shard_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "log_to_stderr", lambda: None)
    monkeypatch.setattr(job_module, "enter_job", lambda _: None)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.setattr("sys.argv", ["job", "embed", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        job_module.main()


START = "StartTime=2026-11-23T02:21:21"


@pytest.mark.parametrize(
    ("answer", "outcomes", "requeues", "said"),
    [
        ("JobState=COMPLETING Reason=None EndTime=2026-11-23T02:21:32", ["cancelled"] * 4, 0, "cancelled; to run it"),
        ("JobState=COMPLETING Reason=None EndTime=Unknown again", ["stopped"] * 4, 0, "starts it again by itself"),
        ("JobState=PENDING Reason=JobHeldUser EndTime=Unknown again", ["stopped"] * 4, 0, "starts it again by itself"),
        ("JobState=RUNNING Reason=None PreemptTime=2026-11-23T02:21:44", ["stopped"] * 4, 4, "requeued: the next"),
        ("JobState=COMPLETING Reason=TimeLimit", ["stopped", "stopped", "failed", "stopped"], 3, "stopped 3 times"),
    ],
)
def test_only_the_jobs_own_stops_end_its_requeues(
    answer: str,
    outcomes: list[str],
    requeues: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """SIGTERM at four starts without progress. A stand-in answers as the recorded scontrol did."""
    run = RunFolder(tmp_path / "run")
    run.logs.mkdir(parents=True)
    caplog.set_level(logging.INFO, "embedkit")
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=":")
    for restart in range(4):
        shown = f"JobId=7 Restarts={restart + answer.endswith('again')} {START} {answer}"
        scontrol.write_text(f'#!/bin/sh\n[ $1 = show ] && echo "{shown}" || echo "$*" >>{tmp_path}/requeues\n')
        scontrol.chmod(0o755)
        monkeypatch.setattr("embedkit.job._current", JobContext(name="7", id="7", restart=restart))
        job = SlurmJob("embed", run, shard=1)
        job._record("started")
        job._stop(signal.SIGTERM)
    attempts = Attempts(run, "embed", 1)
    assert [attempt.outcome for attempt in attempts.attempts()] == outcomes
    requested = tmp_path / "requeues"
    assert (requested.read_text().splitlines() if requested.exists() else []) == ["requeue 7"] * requeues
    assert said in caplog.text
    assert attempts.repeat_failure() is None
