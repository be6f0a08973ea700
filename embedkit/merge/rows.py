"""Merge rows: the parts into `metadata.parquet` and one such file per source, in windows of rows.

While one window is compressed into both, the next is read.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.data import SourceIndex, open_checked_part
from embedkit.documents import FileSet, Plan, PlanPart, Request
from embedkit.log_progress import LogProgress
from embedkit.prepare import COMPRESSION, extracted_schema, stored_texts
from embedkit.run import RunFolder

log = logging.getLogger(__name__)

WINDOW_BYTES = 32 << 20
PENDING_BYTES = 128 << 20
"""Sources' rows that are kept in memory, so that their row groups do not become small."""
SOURCES_PER_PASS = 1000
"""Every open Parquet file takes memory. For more sources, the rows are read once more per pass."""


def metadata_schema(request: Request) -> pa.Schema:
    """Columns of metadata.parquet: id, then those of extracted_data.parquet, without texts for `--texts none`."""
    left_out = () if request.texts == "all" else stored_texts(request)
    fields = [field for field in extracted_schema(request) if field.name not in left_out]
    return pa.schema([pa.field("id", pa.int64()), *fields])


def merge_rows(run: RunFolder, request: Request, plan: Plan, sources: SourceIndex, files: FileSet) -> None:
    """Write `metadata.parquet` and one per source into `files`."""
    schema = metadata_schema(request)
    progress = LogProgress(log, "merge rows", plan.rows_kept, "rows")
    for codes in _passes(len(sources.names)):
        with ExitStack() as stack:
            whole = None
            if codes.start == 0:
                whole = stack.enter_context(pq.ParquetWriter(files.add(run.metadata), schema, **COMPRESSION))
            by_source = stack.enter_context(_BySource(run, sources, codes, schema, files))
            pool = stack.enter_context(ThreadPoolExecutor(2, "write"))
            writes: list[Future[None]] = []
            first = 0
            for window in windows(run, plan.parts, schema):
                for write in writes:
                    write.result()
                writes = [pool.submit(by_source.write, first, window)]
                if whole is not None:
                    writes.append(pool.submit(whole.write_table, window))
                    progress.add(window.num_rows)
                first += window.num_rows
            for write in writes:
                write.result()


def _passes(sources: int) -> list[range]:
    return [range(sources)[i : i + SOURCES_PER_PASS] for i in range(0, sources, SOURCES_PER_PASS)]


def windows(run: RunFolder, parts: Sequence[PlanPart], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows of parts that follow each other, with their ids, in tables of at least WINDOW_BYTES.

    Every call checks the parts' bytes again. Raises EmbedkitError naming a part that is damaged.
    """
    columns = [name for name in schema.names if name != "id"]
    read: list[pa.Table] = []
    first = next_id = parts[0].first_id
    for part in parts:
        with open_checked_part(run, part) as parquet:
            for group in range(parquet.metadata.num_row_groups):
                read.append(parquet.read_row_group(group, columns=columns))
                next_id += read[-1].num_rows
                if sum(table.nbytes for table in read) >= WINDOW_BYTES:
                    yield _window(read, first, schema)
                    read, first = [], next_id
    if read:
        yield _window(read, first, schema)


def _window(tables: list[pa.Table], first: int, schema: pa.Schema) -> pa.Table:
    rows = pa.concat_tables(tables).combine_chunks()  # `take` is slow where a column has several chunks
    ids = pa.array(np.arange(first, first + rows.num_rows))
    return rows.add_column(0, "id", ids).select(schema.names).cast(schema)


class _BySource:
    """The files of the sources with these codes. A source's rows wait in memory until they fill a row group."""

    def __init__(self, run: RunFolder, sources: SourceIndex, codes: range, schema: pa.Schema, files: FileSet) -> None:
        self._source_codes = sources.codes
        self._schema = schema
        self._sinks = {code: files.add(run.source_metadata(sources.folder(code))) for code in codes}
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._pending: dict[int, list[pa.Table]] = {}
        self._pending_bytes: Counter[int] = Counter()

    def write(self, first: int, window: pa.Table) -> None:
        """Add each row of a window, ids first, first + 1, ..., to its source."""
        codes = self._source_codes[first : first + window.num_rows]
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        for code, at in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
            if code in self._sinks:
                rows = window.take(pa.array(at))  # a copy: a slice would keep the whole window in memory
                self._pending.setdefault(code, []).append(rows)
                self._pending_bytes[code] += rows.nbytes
        while self._pending_bytes.total() > PENDING_BYTES:
            self._flush(self._pending_bytes.most_common(1)[0][0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for code in self._sinks:
            if kind is None:
                self._flush(code)
            if code in self._writers:
                self._writers.pop(code).close()

    def _flush(self, code: int) -> None:
        if code not in self._writers:
            self._writers[code] = pq.ParquetWriter(self._sinks[code], self._schema, **COMPRESSION)
        if code in self._pending:
            self._writers[code].write_table(pa.concat_tables(self._pending.pop(code)).combine_chunks())
            del self._pending_bytes[code]
