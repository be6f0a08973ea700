"""Merged tables of row groups that are copied as the parts have them, and of those that are not."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit.check.verify import verify
from embedkit.data import SourceIndex
from embedkit.documents import FileSet, Plan, Request, RunConfig, Success, read
from embedkit.errors import EmbedkitError
from embedkit.merge import merge, row_groups, rows_by_source, tables
from embedkit.merge import rows as merge_rows
from embedkit.merge.encoded_file import EncodedFile
from embedkit.merge.thrift_compact import NotUnderstood
from embedkit.run import RunFolder
from tests.conftest import made_once
from tests.support.small_run import TABLE_ROWS, make_small_embedded

PARTS = 4
TEXT = "response_text"


@pytest.fixture(autouse=True)
def _all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row groups of the small run are far below LARGE_BYTES."""
    monkeypatch.setattr(row_groups, "LARGE_BYTES", 1)


@pytest.fixture
def sorted_run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> RunFolder:
    """Embedded, not merged. The rows of a source follow each other: the first part has one source, and the last."""
    made = made_once(tmp_path_factory, "sorted-run", lambda folder: make_small_embedded(folder, by_source=True))
    shutil.copytree(made / "run", tmp_path / "sorted")
    return RunFolder(tmp_path / "sorted")


def chunks(path: Path, column: str) -> list[bytes]:
    """The encoded bytes of a column, by row group."""
    data, metadata = path.read_bytes(), pq.ParquetFile(path).metadata
    at = [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)].index(column)
    found = []
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(at)
        start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
        found.append(data[start : start + chunk.total_compressed_size])
    return found


def of_parts(run: RunFolder, column: str) -> list[bytes]:
    return [chunk for part in range(PARTS) for chunk in chunks(run.part_data(part), column)]


def request_of(run: RunFolder) -> Request:
    return read(run.config, RunConfig).request


def check_rows(run: RunFolder) -> None:
    """The merged rows are those of the parts, whole and by source, and verify says so."""
    whole = pl.read_parquet(run.metadata)
    parts = pl.concat([pl.read_parquet(run.part_data(part)) for part in range(PARTS)])
    assert whole.drop("id").equals(parts)
    assert whole["id"].to_list() == list(range(76))
    for source, record in read(run.success, Success).sources.items():
        of_source = whole.filter(pl.col("dataset_source") == source)
        assert of_source.height == record.rows
        assert pl.read_parquet(run.source_metadata(record.folder)).equals(of_source)
    assert verify(run).ok


def test_large_row_groups_are_copied(small_embedded: RunFolder) -> None:
    run = small_embedded
    success = merge(run)
    assert chunks(run.metadata, TEXT) == of_parts(run, TEXT)
    check_rows(run)
    assert merge(run) == success


def test_small_row_groups_are_joined(small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean size of the columns that are taken counts, and not that of all columns."""
    run = small_embedded
    sizes = [EncodedFile(run.part_data(part).read_bytes()).size([TEXT, "row"]) for part in range(PARTS)]
    monkeypatch.setattr(row_groups, "LARGE_BYTES", sorted(sizes)[-1])
    schema = pa.schema([("id", pa.int64()), ("row", pa.int64()), (TEXT, pa.large_string())])
    found = list(row_groups.row_groups(run, read(run.plan, Plan).parts, schema))
    at = sizes.index(max(sizes))
    assert [isinstance(rows, row_groups.LargeGroup) for rows in found] == [
        *[False] * bool(at),
        True,
        *[False] * (at < 3),
    ]
    tables = [table for rows in found for table in rows.tables()]
    assert pa.concat_tables(tables)["id"].to_pylist() == list(range(76))
    assert [rows.first for rows in found] == [table["id"][0].as_py() for table in tables]


def test_a_source_takes_row_groups_that_are_its_own(sorted_run: RunFolder) -> None:
    """The others are encoded: the end of the source before, and the begin of the next."""
    run = sorted_run
    merge(run)
    parts = of_parts(run, TEXT)
    assert chunks(run.metadata, TEXT) == parts
    first, last = (chunks(run.source_metadata(folder), TEXT) for folder in ("a_b", "zzz"))
    assert (len(first), first[0]) == (2, parts[0])
    assert (len(last), last[1]) == (2, parts[3])
    assert len(chunks(run.source_metadata("source_one"), TEXT)) == 1
    check_rows(run)


@pytest.mark.parametrize("pending", [0, 2000, 8000, 16000])
@pytest.mark.parametrize("batch", [1, 2000])
def test_rows_that_wait_are_all_written(
    pending: int, batch: int, small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, however many wait, in one pass or in two."""
    monkeypatch.setattr(rows_by_source, "PENDING_BYTES", pending)
    monkeypatch.setattr(rows_by_source, "WRITING_BYTES", pending // 2)
    monkeypatch.setattr(row_groups, "BATCH_BYTES", batch)
    monkeypatch.setattr(merge_rows, "SOURCES_PER_PASS", 2)
    merge(small_embedded)
    check_rows(small_embedded)


def test_a_part_that_cannot_be_copied_is_encoded(small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_embedded
    other = run.part_data(1).read_bytes()

    def refuse(data: bytearray) -> EncodedFile:
        if data == other:
            raise NotUnderstood
        return EncodedFile(data)

    monkeypatch.setattr(row_groups, "EncodedFile", refuse)
    merge(run)
    check_rows(run)
    found = row_groups.row_groups(run, read(run.plan, Plan).parts, merge_rows.metadata_schema(request_of(run)))
    assert [isinstance(rows, row_groups.LargeGroup) for rows in found] == [True, False, True, True]


def test_a_column_of_another_type_is_encoded(sorted_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a run of a version that stored it so. The other columns are copied."""
    run = sorted_run
    right = merge_rows.metadata_schema

    def wide(request: Request) -> pa.Schema:
        schema = right(request)
        at = schema.get_field_index("num_turns")
        return schema.set(at, pa.field("num_turns", pa.int64()))

    monkeypatch.setattr(merge_rows, "metadata_schema", wide)
    merge(run)
    assert chunks(run.metadata, TEXT) == of_parts(run, TEXT)
    whole = pl.read_parquet(run.metadata)
    parts = pl.concat([pl.read_parquet(run.part_data(part)) for part in range(PARTS)])
    assert whole.drop("id").equals(parts.cast({"num_turns": pl.Int64}))
    assert pl.read_parquet(run.source_metadata("a_b")).equals(whole.filter(pl.col("dataset_source") == "a/b"))


def test_tables_of_the_sharded_layout_are_copied(small_sharded: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tables of two parts each, with the same rows and sources as those that were encoded."""
    run = small_sharded
    monkeypatch.setattr(tables, "TABLE_ROWS", TABLE_ROWS)
    before = [pl.read_parquet(run.table(number)) for number in range(2)]
    sources = read(run.success, Success).sources
    run.success.unlink()
    assert merge(run).sources == sources
    assert [chunk for number in range(2) for chunk in chunks(run.table(number), TEXT)] == of_parts(run, TEXT)
    for number in range(2):
        assert pl.read_parquet(run.table(number)).equals(before[number])
    assert verify(run).ok


@pytest.mark.parametrize("at", [4, 300, -5])
def test_a_flipped_bit_in_a_part_is_named(at: int, small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It flips after the sources were read. Nothing of it is copied."""
    run = small_embedded
    right = merge_rows.row_groups

    def flip_first(*args: Any) -> Iterator[row_groups.RowGroup]:
        data = bytearray(run.part_data(2).read_bytes())
        data[at] ^= 1
        run.part_data(2).write_bytes(data)
        yield from right(*args)

    monkeypatch.setattr(merge_rows, "row_groups", flip_first)
    with pytest.raises(
        EmbedkitError, match=r"part-00002.parquet: its bytes are not .*; to make it again: embedkit run"
    ):
        merge(run)
    assert not run.success.exists()
    assert not list(run.embeddings.rglob("*.tmp"))


def test_rows_end_when_the_vectors_are_damaged(small_embedded: RunFolder) -> None:
    """The files are left without a footer, for the caller to discard."""
    run = small_embedded
    plan = read(run.plan, Plan)
    with FileSet(expected=4) as files:
        merge_rows.merge_rows(run, request_of(run), plan, SourceIndex(run, plan), files, lambda: True)
        assert {file.bytes for file in files.records(run.embeddings)} == {4}
