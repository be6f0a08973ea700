"""Which shards a job has, and its exit record: it has the error's code, also where a worker raised the error."""

import socket
from pathlib import Path

import pytest

from embedkit.errors import CanaryMoved, EmbedkitError, PreflightFailed
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
        embed_in_worker(tmp_path, 3, tmp_path)
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
