"""The kept rows by id, read from the parts. `id` is the 0-based position among the kept rows."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents import FileRecord, PlanPart, read_checked, take_rows
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder


class KeptRows:
    """Reads any range of ids. Only the row groups with these rows are read."""

    def __init__(self, run: RunFolder, parts: Sequence[PlanPart]) -> None:
        self._folder = run.extracted
        self._parts = parts
        self._first_ids = [part.first_id for part in parts]

    def read(self, start: int, stop: int, columns: Sequence[str]) -> pl.DataFrame:
        """Rows with start <= id < stop, in order, with the given columns of extracted_data.parquet.

        Raises EmbedkitError if a part is damaged or missing.
        """
        frames = list(self._pieces(start, stop, list(columns)))
        frame = pl.concat(frames) if frames else pl.DataFrame()
        if frame.height != stop - start:
            raise EmbedkitError(
                f"{self._folder}: ids {start} to {stop - 1} have {frame.height} rows; run `embedkit verify`"
            )
        return frame

    def take(self, ids: npt.NDArray[np.int64], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Rows of ascending ids, int64 (n,), with the given columns, part by part. Raises EmbedkitError as `read`."""
        starts = np.searchsorted(ids, self._first_ids).tolist()
        for part, start, stop in zip(self._parts, starts, [*starts[1:], len(ids)], strict=True):
            if start < stop:
                at = ids[start:stop] - part.first_id
                with _opened(self._folder / part.file.name, part.file) as parquet:
                    table = take_rows(parquet, at, columns)
                yield _frame(table)

    def _pieces(self, start: int, stop: int, columns: list[str]) -> Iterator[pl.DataFrame]:
        """The rows part by part."""
        first = max(bisect_right(self._first_ids, start) - 1, 0)
        for part in self._parts[first:]:
            if part.first_id >= stop:
                return
            low, high = max(start - part.first_id, 0), min(stop - part.first_id, part.rows)
            if low < high:
                yield _read_part(self._folder / part.file.name, part.file, low, high, columns)


def _read_part(path: Path, record: FileRecord, low: int, high: int, columns: list[str]) -> pl.DataFrame:
    """Rows [low, high) of one part file."""
    with _opened(path, record) as parquet:
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = range(int(np.searchsorted(ends, low, "right")), int(np.searchsorted(ends, high, "left")) + 1)
        table = parquet.read_row_groups(list(groups), columns=columns, use_threads=False)
    skipped = int(ends[groups.start] - sizes[groups.start])
    return _frame(table.slice(low - skipped, high - low))


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


@contextmanager
def _opened(path: Path, record: FileRecord) -> Iterator[pq.ParquetFile]:
    """A part's reader, which is this thread's own. Raises EmbedkitError if the part is damaged."""
    try:
        with pq.ParquetFile(pa.BufferReader(_part_bytes(path, record)), pre_buffer=False) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise EmbedkitError(f"{path}: cannot be read: {error}; run `embedkit verify`") from None


@lru_cache(maxsize=2)
def _part_bytes(path: Path, record: FileRecord) -> bytearray:
    """The bytes of a part, after their sha256 was compared with the plan's.

    Token counts alone would not show a damaged text, and the file may change between two reads. Ids are read in order,
    so two parts in memory are enough.
    """
    try:
        return read_checked(path, record)
    except EmbedkitError as error:
        raise EmbedkitError(f"{error}; run `embedkit verify`") from None
