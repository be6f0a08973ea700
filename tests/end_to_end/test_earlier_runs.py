"""Runs made by earlier versions: they open, resume, merge, verify, rerun, report and analyze, to the same bytes."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
from embedkit.run import RunFolder
from jobs.submit.plan import plan_submission
from jobs.submit.state import read_state
from tests.conftest import ROOT, embedkit, snapshot

ARCHIVE = ROOT / "tests" / "data" / "runs" / "e73790c.tar.xz"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The archive's folder. Its runs name places of data and model that are gone."""
    with tarfile.open(ARCHIVE) as archive:
        if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
            archive.extractall(tmp_path, filter="data")
        else:
            archive.extractall(tmp_path)
    return tmp_path


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without Slurm: the cluster to which `on_slurm` was submitted is gone."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def sums(folder: Path, name: str) -> dict[str, str]:
    views = ("combined", "think") if name == "finished" else ("combined",)
    files = snapshot(RunFolder(folder / name), *views)  # type: ignore[arg-type]
    return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def expected(folder: Path, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "expected.json").read_text())[name]
    return found


def printed(command: str, folder: Path, name: str, code: int = 0) -> Any:
    """The JSON of a command that must end with this exit code."""
    return json.loads(embedkit(command, name, "--output-dir", folder, "--json", code=code).stdout)


NOT_COMPARED = {"verdict", "losses", "unknown_tokens", "near_duplicate_levels", "nearest_rows"}
"""Keys of an analysis' JSON: a sentence in words, and what has been added since the earlier versions."""


def data_of(path: Path) -> Any:
    """What a file holds: arrays by name, JSON without NOT_COMPARED, a table's columns, or else its bytes."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}
    if path.suffix == ".parquet":
        return pl.read_parquet(path).to_dict(as_series=False)
    if path.suffix != ".json":
        return path.read_bytes()
    value = json.loads(path.read_text(encoding="utf-8"))
    return {key: value[key] for key in value if key not in NOT_COMPARED} if isinstance(value, dict) else value


def assert_alike(found: Any, right: Any, where: str) -> None:
    """Everything is equal, and floats are within 1e-5: their last bits depend on the CPU that multiplied matrices."""
    assert type(found) is type(right), where
    if isinstance(right, dict):
        assert list(found) == list(right), where
        for key, value in right.items():
            assert_alike(found[key], value, f"{where}: {key}")
    elif isinstance(right, list):
        assert len(found) == len(right), where
        for i, value in enumerate(right):
            assert_alike(found[i], value, f"{where}[{i}]")
    elif isinstance(right, np.ndarray):
        assert (found.dtype, found.shape) == (right.dtype, right.shape), where
        if right.dtype.kind == "f":
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5, err_msg=where)
        else:
            assert (found == right).all(), where
    elif isinstance(right, float):
        assert found == pytest.approx(right, rel=1e-5, abs=1e-5, nan_ok=True), where
    else:
        assert found == right, where


@pytest.mark.usefixtures("no_slurm")
def test_a_finished_run_opens(earlier: Path) -> None:
    assert sums(earlier, "finished") == expected(earlier, "finished")
    assert printed("status", earlier, "finished")["stage"] == "done"
    assert not printed("verify", earlier, "finished")["problems"]
    shards = printed("report", earlier, "finished")["shards"]
    assert [shard["state"] for shard in shards] == ["finished"] * 3
    assert "merged" in embedkit("report", "finished", "--output-dir", earlier).stdout


@pytest.mark.usefixtures("no_slurm")
def test_a_finished_run_is_analyzed(earlier: Path) -> None:
    """The files that its own version wrote come out the same, except for NOT_COMPARED."""
    analysis = earlier / "finished" / "analysis"
    before = {path.name: data_of(path) for path in analysis.iterdir() if path.is_file()}
    assert len(before) >= 20
    shutil.rmtree(analysis)
    small = ("--components", 2, "--extremes", 1, "--points", 50, "--umap", 0, "--groups", 0)
    embedkit("analyze", "finished", "--output-dir", earlier, *small)
    for name, right in before.items():
        assert_alike(data_of(analysis / name), right, name)
    assert (analysis / "index.html").exists()


@pytest.mark.usefixtures("no_slurm")
@pytest.mark.parametrize(
    ("name", "rows", "chunks"),
    [pytest.param("half", [221, 47, 0], 1, marks=pytest.mark.slow), ("on_slurm", [221, 96, 222], 2)],
)
def test_an_unfinished_run_goes_on(name: str, rows: list[int], chunks: int, earlier: Path) -> None:
    """What its own version made durable is taken over, and it ends where that version would have ended."""
    before = printed("status", earlier, name, code=1)
    assert [shard["rows_done"] for shard in before["shards"]] == rows
    assert not printed("verify", earlier, name)["problems"]
    moved = ("--dataset", earlier / "chats.jsonl", "--model", earlier / "tokenizer")
    embedkit("run", "--resume", "--run-name", name, "--output-dir", earlier, *moved)
    assert sums(earlier, name) == expected(earlier, name)
    manifest = json.loads((earlier / name / "embeddings" / "shards" / "00001" / "manifest.json").read_text())
    assert manifest["chunks_adopted"] == chunks
    assert not printed("verify", earlier, name)["problems"]


@pytest.mark.usefixtures("no_slurm")
def test_an_unfinished_run_of_slurm_is_explained(earlier: Path) -> None:
    status = embedkit("status", "on_slurm", "--output-dir", earlier, check=False)
    assert status.returncode == 1
    assert "an illegal memory access" in status.stdout
    assert "embedkit rerun" in status.stdout
    report = printed("report", earlier, "on_slurm")
    assert [attempt["stage"] for attempt in report["attempts"]].count("embed") == 4


def test_a_rerun_with_a_stand_in_queue_submits_what_failed(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a run that an earlier version submitted: its failed shard, and a merge."""
    monkeypatch.setattr("jobs.records.live.queue", lambda: [])
    monkeypatch.setattr("jobs.submit.state.SECOND_LOOK_SECONDS", 0.0)
    run = RunFolder(earlier / "on_slurm")
    state = read_state(run, read(run.config, RunConfig), 3)
    assert list(state.problems) == [1]
    jobs = {job.stage: job for job in plan_submission(state, 2).submit}
    assert list(jobs) == ["embed", "merge"]
    assert jobs["embed"].indices == (1,)
