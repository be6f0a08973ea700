"""The rows of each source in a table of its own. A source's rows wait in memory until they fill a row group."""

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from embedkit.data import SourceIndex
from embedkit.documents import FileSet
from embedkit.merge.row_groups import LargeGroup, RowGroup
from embedkit.merge.table_file import TableFile, encode_rows
from embedkit.run import RunFolder

PENDING_BYTES = 128 << 20
"""Sources' rows that are kept in memory, so that their row groups do not become small."""
KEPT_SHARE = 4
"""If they are more, the sources with most are written, until a fourth is left: what is left is copied once more."""
WRITING_BYTES = 32 << 20
"""Rows that are being encoded, or wait for it, and parts of which rows are being copied."""


class RowsBySource:
    """The tables of the sources with these codes. `pool` encodes and writes them."""

    def __init__(
        self,
        run: RunFolder,
        sources: SourceIndex,
        codes: range,
        schema: pa.Schema,
        files: FileSet,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._codes = sources.codes
        self._files = {code: TableFile(files.add(run.source_metadata(sources.folder(code))), schema) for code in codes}
        self._pool = pool
        self._pending: dict[int, list[pa.Table]] = {}
        self._pending_bytes: Counter[int] = Counter()
        self._last: dict[int, Future[None]] = {}
        self._writing: deque[tuple[Future[None], int]] = deque()

    def add(self, rows: RowGroup) -> None:
        """Add each row to its source."""
        codes = self._codes[rows.first : rows.first + rows.num_rows]
        present = np.unique(codes).tolist()
        if not any(code in self._files for code in present):
            return
        if isinstance(rows, LargeGroup) and len(present) == 1:
            self._flush(present[0])
            file = self._files[present[0]]
            self._submit(present[0], lambda: rows.write_to(file), len(rows.file.data))
            return
        for table in rows.tables():
            self._add(codes[: table.num_rows], table)
            codes = codes[table.num_rows :]

    def finish(self) -> None:
        """Write what waits, and the footers."""
        for code, file in self._files.items():
            self._flush(code)
            self._submit(code, file.close, 0)
        while self._writing:
            self._writing.popleft()[0].result()

    def _add(self, codes: np.ndarray, rows: pa.Table) -> None:
        """Sort the rows by source, a copy of the texts, and keep each source's slice of that."""
        by_source = rows.take(pa.array(np.argsort(codes, kind="stable")))
        start = 0
        for code, count in zip(*(found.tolist() for found in np.unique(codes, return_counts=True)), strict=True):
            if code in self._files:
                of_source = by_source.slice(start, count)
                self._pending.setdefault(code, []).append(of_source)
                self._pending_bytes[code] += of_source.nbytes
            start += count
        if self._pending_bytes.total() > PENDING_BYTES:
            self._flush_most()

    def _flush_most(self) -> None:
        """Write the sources with most rows. Copy the slices of the others: they keep all sorted rows in memory."""
        for code, _ in self._pending_bytes.most_common():
            if self._pending_bytes.total() <= PENDING_BYTES // KEPT_SHARE:
                break
            self._flush(code)
        for code, slices in self._pending.items():
            rows = pa.concat_tables(slices)
            self._pending[code] = [rows.take(np.arange(len(rows))) if len(slices) == 1 else rows.combine_chunks()]

    def _flush(self, code: int) -> None:
        if code in self._pending:
            rows = pa.concat_tables(self._pending.pop(code))
            file = self._files[code]
            self._submit(code, lambda: file.write(encode_rows(rows)), self._pending_bytes.pop(code))

    def _submit(self, code: int, write: Callable[[], None], size: int) -> None:
        """Write to a source's table after all that was submitted before for it. size: bytes that are in memory."""
        self._last[code] = self._pool.submit(_after, self._last.get(code), write)
        self._writing.append((self._last[code], size))
        while self._writing and (self._writing[0][0].done() or sum(size for _, size in self._writing) > WRITING_BYTES):
            self._writing.popleft()[0].result()


def _after(earlier: Future[None] | None, write: Callable[[], None]) -> None:
    if earlier is not None:
        earlier.result()
    write()
