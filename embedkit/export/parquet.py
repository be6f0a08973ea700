"""Exports as Parquet: files of metadata beside a column of vectors, which is a list of fixed size.

Written by pyarrow: row groups of ROW_GROUP rows (fewer where texts are long), statistics and a page index for the
metadata. int8's ranges, and what the vectors are, are in the key-value metadata of every file. Read back by polars.
"""

import glob
import json
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents import FileRecord
from embedkit.errors import EmbedkitError, UsageError
from embedkit.export.forms import Array
from embedkit.export.map_columns import FIELDS
from embedkit.export.part import Job, Part, new_file
from embedkit.export.record import ExportRequest
from embedkit.export.sample import ids_at, require_count, require_equal, sampled
from embedkit.export.table import Table
from embedkit.log_progress import Advance
from embedkit.prepare import TEXT_COLUMNS

VECTORS = "embedding"
"""The column of vectors."""
ROW_GROUP = 25_000
GROUP_BYTES = 256 << 20
"""Bytes of a row group before compression, at most: it is in memory while it is written."""
PART_GROUPS = 10
"""Row groups of a file."""
CHECKED_ROWS = 6
"""Rows of a file that are read back, each with its whole row group."""


class ParquetWriter:
    """Parquet files: `data/part-00000.parquet`, or `by_source/SOURCE/part-00000.parquet`."""

    checked_by = "polars"

    def refuse(self, request: ExportRequest) -> None:
        """Refuse --index: Parquet has none. With --map, rows are found by id, which are those of the whole run."""
        refuse_index(request)
        if request.map_sha256 and request.by_source:
            raise UsageError("--map: ids of nearest rows are positions in the whole run; leave out --by-source")

    def parts(self, job: Job) -> list[Part]:
        """One part per file."""
        return [
            Part(
                name,
                stop - start,
                partial(_write, job, table, start, stop, name),
                partial(_check, job, table, start, stop, name),
            )
            for table, start, stop, name in _files(job)
        ]

    def facts(self, folder: Path, job: Job) -> dict[str, str]:
        """No index."""
        return {}

    def how_to_read(self, folder: Path, job: Job) -> tuple[str, ...]:
        """With polars; DuckDB and datasets read the same files."""
        files = "by_source/*/*.parquet" if job.request.by_source else "data/*.parquet"
        lines = (
            "import polars as pl",
            f"rows = pl.read_parquet({glob.escape(str(folder)) + '/' + files!r})  # {VECTORS!r} has the vectors",
        )
        if job.map_files is None:
            return lines
        options = f"{text_option(job.request)}--x x --y y --neighbors neighbors"
        return (*lines, f"# or in a shell: embedding-atlas {shlex.quote(str(folder))}/data/*.parquet {options}")


def text_option(request: ExportRequest) -> str:
    """The option of Embedding Atlas that names the text: of the first column of texts, if there is one."""
    text = next((name for name in TEXT_COLUMNS if name in request.columns), None)
    return f"--text {text} " if text else ""


def refuse_index(request: ExportRequest) -> None:
    """Raise UsageError if an index was requested of files that have none."""
    if request.index:
        raise UsageError(f"--index: {request.to} files have no index; lance and faiss have one")


def with_vectors(lines: pa.Table, stored: Array, about: dict[str, str]) -> pa.Table:
    """Add stored vectors, (n, width), to rows of metadata, and facts to the schema's metadata."""
    width = stored.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), width)
    return lines.append_column(VECTORS, column).replace_schema_metadata(about)


def schema_of(job: Job) -> pa.Schema:
    """Columns of exported rows, with facts about the vectors."""
    fields = [job.tables[0].schema.field(name) for name in job.request.columns]
    empty = pa.schema([*fields, *(FIELDS if job.map_files else ())]).empty_table()
    return with_vectors(empty, np.empty((0, job.form.width), job.form.storage), facts(job)).schema


def facts(job: Job) -> dict[str, str]:
    """What is written into the metadata of files: of what run and form, and the ranges of int8 as JSON."""
    found = dict(job.about)
    if job.form.ranges is not None:
        found["embedkit.ranges"] = json.dumps(job.form.ranges.tolist())  # lossless: Python's floats have more digits
    return found


def _write_metadata(job: Job, table: Table, folder: Path, advance: Advance) -> Sequence[FileRecord]:
    records: list[FileRecord] = []
    rows = group_rows(job, table, 0)
    schema = pa.schema([table.schema.field(name) for name in job.request.columns], facts(job))
    with new_file(folder, table.name("metadata.parquet"), records) as file, _writer(file, schema) as writer:
        for lines in table.lines(job.request.columns, 0, table.rows, rows):
            writer.write_table(lines.cast(schema), row_group_size=rows)
            advance(lines.num_rows)
    return records


def metadata_part(job: Job, table: Table) -> Part:
    """The part with the metadata alone, `metadata.parquet`."""
    name = table.name("metadata.parquet")
    return Part(name, table.rows, partial(_write_metadata, job, table), partial(_check_metadata, table))


def _check_metadata(table: Table, folder: Path) -> int:
    """Raise EmbedkitError unless `metadata.parquet` of a table has its rows. Returns 0: it has no vectors."""
    path = folder / table.name("metadata.parquet")
    lines = pl.scan_parquet(path, glob=False)
    require_count(str(path), lines.select(pl.len()).collect().item(), table.rows)
    for row, id_ in ids_at(table, sampled(0, table.rows)).items():
        if lines.slice(row, 1).select("id").collect().item() != id_:
            raise EmbedkitError(f"{path}: row {row} has another id than in the run; export it again")
    return 0


def group_rows(job: Job, table: Table, vector_bytes: int) -> int:
    """Rows of a row group: ROW_GROUP, or fewer if they would be more than GROUP_BYTES."""
    chosen = sum(table.column_bytes[name] for name in job.request.columns)
    per_row = vector_bytes + chosen / max(table.rows, 1)
    return max(min(ROW_GROUP, int(GROUP_BYTES / max(per_row, 1))), 1)


def _files(job: Job) -> Iterator[tuple[Table, int, int, str]]:
    """Each file: its table, rows [start, stop) and name."""
    for table in job.tables:
        rows = group_rows(job, table, job.form.vector_bytes) * PART_GROUPS
        for number, start in enumerate(range(0, table.rows, rows)):
            name = f"part-{number:05d}.parquet"
            yield table, start, min(start + rows, table.rows), table.name(name) if table.folder else f"data/{name}"


def _write(
    job: Job, table: Table, start: int, stop: int, name: str, folder: Path, advance: Advance
) -> Sequence[FileRecord]:
    records: list[FileRecord] = []
    rows = group_rows(job, table, job.form.vector_bytes)
    with new_file(folder, name, records) as file, _writer(file, schema_of(job)) as writer:
        for lines in table.lines(job.request.columns, start, stop, rows):
            stored = stored_rows(job, table, start, start + lines.num_rows)
            whole = with_vectors(_with_map(job, lines, start), stored, facts(job))
            writer.write_table(whole.cast(writer.schema), row_group_size=rows)
            start += lines.num_rows
            advance(lines.num_rows)
    return records


def _with_map(job: Job, lines: pa.Table, start: int) -> pa.Table:
    """Rows of metadata from an id on, with the columns of the analysis if they are requested."""
    if job.map_files is None:
        return lines
    found = job.map_files.lines(start, start + lines.num_rows)
    for field in found.schema:
        lines = lines.append_column(field, found[field.name])
    return lines


def _check(job: Job, table: Table, start: int, stop: int, name: str, folder: Path) -> int:
    """Read the count and sampled rows of a file with polars."""
    path = folder / name
    lines = pl.scan_parquet(path, glob=False)
    require_count(str(path), lines.select(pl.len()).collect().item(), stop - start)
    ids = ids_at(table, sampled(start, stop, CHECKED_ROWS))
    for row, id_ in ids.items():
        found = lines.slice(row - start, 1).collect()
        if found["id"].item() != id_:
            raise EmbedkitError(f"{path}: row {row - start} has the id {found['id'].item()}; export it again")
        require_equal(str(path), table, row, found[VECTORS].to_numpy()[0], job)
    return len(ids)


def stored_rows(job: Job, table: Table, start: int, stop: int) -> Array:
    """Vectors of rows [start, stop) as they are stored, (n, width)."""
    stored = np.empty((stop - start, job.form.width), job.form.storage)
    at = 0
    for block in table.blocks(start, stop):
        stored[at : at + len(block)] = job.form.stored(block)
        at += len(block)
    return stored


def _writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    names = [name for name in schema.names if name != VECTORS]
    plain = VECTORS + ".list.element"
    return pq.ParquetWriter(
        file,
        schema,
        compression=dict.fromkeys(names, "zstd") | ({plain: "none"} if VECTORS in schema.names else {}),
        use_dictionary=["dataset_source"] if "dataset_source" in names else False,
        write_statistics=names,
        write_page_index=True,
    )
