"""Exports as a data set of Lance, the folder `vectors.lance`: metadata beside a column of vectors.

Written by pylance, which chooses names at random and makes nothing durable, so its files are flushed and hashed here
before the folder gets its name. --index makes an IVF index of the vectors as they are (IVF_FLAT), which has them a
second time. Read back by pylance: no other library reads the format.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedkit.analysis.optional_import import optional_import
from embedkit.documents import FileRecord, Floats
from embedkit.errors import EmbedkitError, UsageError
from embedkit.export.parquet import VECTORS, facts, group_rows, schema_of, stored_rows, with_vectors
from embedkit.export.part import Job, Part
from embedkit.export.recall import Ids, Search
from embedkit.export.record import ExportRequest
from embedkit.export.sample import ids_at, require_count, require_equal, sampled
from embedkit.export.table import Table, cells_for
from embedkit.log_progress import Advance
from embedkit.storage import durable_mkdir, fsync_file, fsync_folder, names_file, sha256_file

FOLDER = "vectors.lance"
ROWS_PER_FILE = 1 << 20
BATCH_BYTES = 32 << 20
SEARCHED_SHARE = 16
"""A search looks into one of so many cells."""


class LanceWriter:
    """`vectors.lance`; for sources, each in a folder of its own."""

    checked_by = "pylance"

    def refuse(self, request: ExportRequest) -> None:
        """Refuse if pylance is missing, and an index of numbers that Lance cannot compare."""
        _lance()
        if request.index and request.dtype in ("bfloat16", "int8"):
            raise UsageError(
                f"--index --dtype {request.dtype}: Lance indexes float32, float16 and binary; leave out --index"
            )

    def parts(self, job: Job) -> list[Part]:
        """One part per data set: Lance cannot continue one that was cut off."""
        return [
            Part(table.name(FOLDER), table.rows, partial(_write, job, table), partial(_check, job, table))
            for table in job.tables
        ]

    def facts(self, folder: Path, job: Job) -> dict[str, str]:
        """Of an index: its kind, metric, cells, and how many of them a search is told to look into."""
        if not job.request.index:
            return {}
        found = {"kind": "IVF_FLAT", "metric": _metric(job)}
        for table in job.tables:
            cells = {"cells": str(_cells(job, table)), "searched_cells": str(_searched(job, table))}
            found |= {table.name(name): value for name, value in cells.items()}
        return found

    def search(self, folder: Path, job: Job) -> Search:
        """Search the data set of all rows through its index."""
        table = job.tables[0]
        dataset = _lance().dataset(str(folder / table.name(FOLDER)))

        def nearest(query: Any, k: int) -> Any:
            near = {"column": VECTORS, "q": query, "k": k, "nprobes": _searched(job, table)}
            return dataset.to_table(columns=["id", "_distance"], nearest=near)["id"].to_numpy()

        def search(queries: Floats, k: int) -> Ids:
            kept = job.form.stored(queries) if job.form.dtype == "binary" else job.form.cut(queries)
            found = np.full((len(queries), k), -1, np.int64)
            for at, query in enumerate(kept):
                ids = nearest(query, k)
                found[at, : len(ids)] = ids
            return found

        return search

    def how_to_read(self, folder: Path, job: Job) -> tuple[str, ...]:
        """With pylance."""
        path = str(folder / job.tables[0].name(FOLDER))
        lines = ("import lance", f"rows = lance.dataset({path!r})  # {VECTORS!r} has the vectors")
        if not job.request.index:
            return lines
        near = f"{{'column': {VECTORS!r}, 'q': query, 'k': 10, 'nprobes': {_searched(job, job.tables[0])}}}"
        return (*lines, f"rows.to_table(nearest={near})")


def _lance() -> Any:
    """Import lance, whose log would otherwise say on standard error how long each index took."""
    lance = optional_import("lance", "export")
    logging.getLogger("pylance").setLevel(logging.WARNING)
    return lance


def _write(job: Job, table: Table, folder: Path, advance: Advance) -> Sequence[FileRecord]:
    lance = _lance()
    path = folder / table.name(FOLDER)
    durable_mkdir(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    for left in (temporary, path):  # of a killed export
        shutil.rmtree(left, ignore_errors=True)
    try:
        with names_file(path):
            reader = pa.RecordBatchReader.from_batches(schema_of(job), _batches(job, table, advance))
            dataset = lance.write_dataset(reader, str(temporary), max_rows_per_file=ROWS_PER_FILE)
            if job.request.index and _with_text(job, table):  # Lance cannot make cells of none
                dataset.create_index(VECTORS, "IVF_FLAT", num_partitions=_cells(job, table), metric=_metric(job))
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        for file in files:
            fsync_file(file)
        for one in sorted(
            {parent for file in files for parent in file.parents if temporary in (parent, *parent.parents)}
        ):
            fsync_folder(one)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_folder(path.parent)
    return [_record(path / file.relative_to(temporary), folder) for file in files]


def _check(job: Job, table: Table, folder: Path) -> int:
    """Read the count and sampled rows with pylance."""
    path = folder / table.name(FOLDER)
    dataset = _lance().dataset(str(path))
    require_count(str(path), dataset.count_rows(), table.rows)
    ids = ids_at(table, sampled(0, table.rows))
    found = dataset.take(list(ids), columns=["id", VECTORS])
    for at, (row, id_) in enumerate(ids.items()):
        if found["id"][at].as_py() != id_:
            raise EmbedkitError(f"{path}: row {row} has another id than in the run; export it again")
        vector = found[VECTORS].combine_chunks()[at].values.to_numpy(zero_copy_only=False)
        require_equal(str(path), table, row, vector, job)
    return len(ids)


def _record(path: Path, folder: Path) -> FileRecord:
    name = path.relative_to(folder).as_posix()
    return FileRecord(name=name, bytes=path.stat().st_size, sha256=sha256_file(path))


def _batches(job: Job, table: Table, advance: Advance) -> Iterator[pa.RecordBatch]:
    schema, at = schema_of(job), 0
    per_row = max(group_rows(job, table, job.form.vector_bytes) * BATCH_BYTES // (256 << 20), 1)
    for lines in table.lines(job.request.columns, 0, table.rows, per_row):
        stored = stored_rows(job, table, at, at + lines.num_rows)
        yield from with_vectors(lines, stored, facts(job)).cast(schema).combine_chunks().to_batches()
        at += lines.num_rows
        advance(lines.num_rows)


def _with_text(job: Job, table: Table) -> int:
    return job.with_text[job.tables.index(table)]


def _cells(job: Job, table: Table) -> int:
    return cells_for(_with_text(job, table))


def _searched(job: Job, table: Table) -> int:
    cells = _cells(job, table)
    return max(cells // SEARCHED_SHARE, min(cells, 8))


def _metric(job: Job) -> str:
    return "hamming" if job.form.dtype == "binary" else "cosine"
