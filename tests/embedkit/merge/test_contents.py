"""Merged files that are as `_SUCCESS.json` records and yet wrong: verify names them, and merge makes them again."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl
import pyarrow.parquet as pq
import pytest

from embedkit.check.verify import verify
from embedkit.documents.codec import file_record, read, write
from embedkit.documents.schema import Success
from embedkit.merge.stage import merge
from embedkit.run import RunFolder
from tests.conftest import snapshot


def record_as_right(run: RunFolder) -> None:
    """Record all merged files in `_SUCCESS.json` as they are, as a merge that wrote something wrong would."""
    success = read(run.success, Success)
    files = [msgspec.structs.replace(file_record(run.embeddings / file.name), name=file.name) for file in success.files]
    write(run.success, msgspec.structs.replace(success, files=tuple(files)))


def rewrite(path: Path, edit: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    schema = pq.read_schema(path)
    pq.write_table(edit(pl.DataFrame(pq.read_table(path))).to_arrow().cast(schema), path)


def of_another_source(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(rows["id"].scatter(0, 17), rows["dataset_source"].scatter(0, "source 6"))


def swap_last_vectors(path: Path) -> None:
    data, row = path.read_bytes(), 64 * 4
    path.write_bytes(data[: -2 * row] + data[-row:] + data[-2 * row : -row])


def test_wrong_rows_are_named_and_made_again(damaged_run: RunFolder, hash_run: RunFolder) -> None:
    run = damaged_run
    metadata = [run.by_source / f"source_{i}" / "metadata.parquet" for i in range(7)]
    rewrite(run.metadata, lambda rows: rows.with_columns(rows["response_text"].scatter(17, "another text")))
    rewrite(metadata[1], lambda rows: rows.with_columns(rows["num_turns"].scatter(0, 99), row=rows["row"]))
    rewrite(metadata[2], of_another_source)
    rewrite(metadata[3], lambda rows: rows.reverse())
    rewrite(metadata[4], lambda rows: rows[1:])
    swap_last_vectors(run.by_source / "source_5" / "embeddings.safetensors")
    pq.write_table(pq.read_table(metadata[6]).drop_columns(["num_turns"]), metadata[6])
    record_as_right(run)
    report = verify(run)
    wanted = {
        "metadata.parquet": r"id 17 \(row 20, source 'source 6'\) differs from the part in response_text",
        "by_source/source_1/metadata.parquet": r"id \d+ \(row 1, source 'source 1'\) differs from the part in num_tu",
        "by_source/source_2/metadata.parquet": r"its line 0 is id 17 \(row 20, source 'source 6'\); id \d+ \(row 2, ",
        "by_source/source_3/metadata.parquet": r"its line 0 is id \d+ .*; id \d+ \(row 3, source 'source 3'\) belong",
        "by_source/source_4/metadata.parquet": r"has \d+ rows, the parts \d+",
        "by_source/source_5/embeddings.safetensors": r"its vector \d+ is not that of id \d+ \(row \d+, source 'sou",
        "by_source/source_6/metadata.parquet": "has different columns than the request",
    }
    found = {problem.file.removeprefix("embeddings/"): problem.what for problem in report.problems}
    assert found.keys() == wanted.keys()
    assert all(re.match(wanted[file], what) for file, what in found.items()), found
    assert {problem.fix for problem in report.problems} == {run.resume_command}
    merge(run)  # the last step of that command
    assert snapshot(run) == snapshot(hash_run)
    assert verify(run).ok


EDITS: dict[str, tuple[Callable[[Success], dict[str, object]], str]] = {
    "a count": (lambda success: {"tokens": success.tokens + 1}, "its tokens are not those"),
    "a file that is not named": (lambda success: {"files": success.files[1:]}, "does not name all.safetensors"),
    "a source that is not named": (
        lambda success: {"sources": dict(list(success.sources.items())[1:])},
        "its sources are not those of the parts: 'a/b' has None",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_success_says_is_compared(name: str, damaged_run: RunFolder) -> None:
    edit, what = EDITS[name]
    success = read(damaged_run.success, Success)
    write(damaged_run.success, msgspec.structs.replace(success, **edit(success)))
    damaged_run.submissions.touch()
    problem = verify(damaged_run).problems[0]
    assert problem.file == "embeddings/_SUCCESS.json"
    assert what in problem.what
    assert problem.fix == f"embedkit merge {damaged_run.path}"
    merge(damaged_run)
    assert msgspec.structs.replace(read(damaged_run.success, Success), timings={}) == msgspec.structs.replace(
        success, timings={}
    )


def test_a_stray_file_among_the_merged_ones_is_named(damaged_run: RunFolder) -> None:
    stray = damaged_run.by_source / "old source" / "metadata.parquet"
    stray.parent.mkdir()
    stray.write_bytes(damaged_run.metadata.read_bytes())
    for notes in (damaged_run.by_source / "notes.md", damaged_run.embeddings / "README"):
        notes.write_text("somebody's own, which harm no reader")
    (problem,) = verify(damaged_run).problems
    assert problem.file == "embeddings/by_source/old source/metadata.parquet"
    before = stray.read_bytes()
    subprocess.run(problem.fix, shell=True, check=True)
    assert (damaged_run.path / "embeddings-by_source-old source-metadata.parquet").read_bytes() == before
    assert verify(damaged_run).ok
