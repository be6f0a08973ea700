"""The times of prepare and merge are those of the result that is there."""

from pathlib import Path

import pytest

from embedkit.run import RunFolder
from jobs.records import read_times, record_times


def merge(run: RunFolder, content: str) -> None:
    with record_times(run, "merge", run.success):
        run.success.unlink(missing_ok=True)
        run.success.write_text(content)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.success.parent.mkdir(parents=True)
    return folder


def test_a_line_after_one_that_was_cut_short_counts(run: RunFolder) -> None:
    merge(run, "first")
    file = run.logs / "stage_times.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert read_times(run) == {}
    merge(run, "second")
    assert set(read_times(run)) == {"merge"}


def test_a_line_about_an_earlier_result_does_not_count(run: RunFolder) -> None:
    merge(run, "first")
    assert set(read_times(run)) == {"merge"}
    run.success.write_text("second")
    assert read_times(run) == {}
