"""The commands that verify prints, and which errors of a check become problems."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from embedkit.check.verify.findings import Findings, Problem
from embedkit.documents import FileRecord, ReadBack
from embedkit.documents.codec import NewerFormat, file_record
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder


@pytest.fixture
def findings(tmp_path: Path) -> Iterator[Findings]:
    (tmp_path / "a run").mkdir()
    with ReadBack() as read_back:
        yield Findings(RunFolder(tmp_path / "a run"), read_back)


@pytest.mark.parametrize("is_submitted", [False, True])
def test_fixes_are_commands_of_the_place_of_the_run(findings: Findings, tmp_path: Path, is_submitted: bool) -> None:
    run = RunFolder(tmp_path / "a run")
    resume = f"embedkit run --resume --run-name 'a run' --output-dir {tmp_path}"
    prepare, merge, repair = resume, resume, resume
    if is_submitted:
        run.submissions.touch()
        resume = f"embedkit rerun '{run.path}'"
        prepare = f"embedkit prepare --resume --run-name 'a run' --output-dir {tmp_path}"
        merge = f"embedkit merge '{run.path}'"
        repair = f"rm '{run.shard_manifest(4)}' && {resume}"
    assert findings.repair_shard(4) == repair
    assert findings.remerge == merge
    assert findings.remake(1, 2) == f"rm -r '{run.shard(1)}' '{run.shard(2)}' && {resume}"
    assert findings.made_again(run.plan) == f"rm '{run.plan}' && {resume}"
    assert findings.prepared_again(run.plan, run.data_index) == f"rm '{run.plan}' '{run.data_index}' && {prepare}"
    moved = findings.moved_away(run.extracted / "x.parquet")
    assert moved == f"mv -n '{run.extracted}/x.parquet' '{run.path}/extracted_data.parquet-x.parquet'"


def test_a_problem_has_a_name_in_the_run_and_a_fix(findings: Findings, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a run")
    findings.add(run.plan, "wrong", 3, "type this")
    findings.add(tmp_path / "model", "gone")
    assert findings.problems == [
        Problem(file="plan.json", what="wrong", shard=3, fix="type this"),
        Problem(file=str(tmp_path / "model"), what="gone", shard=None, fix=run.resume_command),
    ]
    assert findings.has(run.plan)
    assert findings.has(tmp_path / "model")
    assert not findings.has(run.config)


ERRORS = [
    EmbedkitError("no"),
    NewerFormat("no"),
    PermissionError(13, "no"),
    pa.ArrowInvalid("no"),
    pl.exceptions.ComputeError("no"),
]


@pytest.mark.parametrize("error", ERRORS, ids=[type(error).__name__ for error in ERRORS])
def test_what_cannot_be_read_is_a_problem_of_the_file(findings: Findings, tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        raise error

    assert findings.attempt(tmp_path / "x", fail, 2, "fix") is None
    assert findings.problems == [Problem(file=str(tmp_path / "x"), what=str(error), shard=2, fix="fix")]


def test_a_fault_of_a_check_is_no_problem_of_a_file(findings: Findings, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        findings.attempt(tmp_path / "x", lambda: 1 // 0)
    assert findings.attempt(tmp_path / "x", lambda: 7) == 7
    assert findings.problems == []


def test_a_file_of_prepare_is_compared_with_its_record(findings: Findings, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a run")
    run.submissions.touch()
    run.dropped.write_bytes(b"abc")
    record = file_record(run.dropped)
    assert findings.check_file(run.dropped, record)
    assert findings.problems == []
    assert not findings.check_file(run.dropped, FileRecord(name=record.name, bytes=3, sha256="0" * 64))
    (problem,) = findings.problems
    assert (problem.file, problem.fix) == ("dropped_rows.parquet", run.prepare_command)
    assert problem.what == f"{run.dropped}: its bytes are not those that were written (sha256 differs)"
