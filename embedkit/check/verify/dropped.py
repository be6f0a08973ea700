"""The dropped rows, which verify reads in step with the parts, so that it never has all of them in memory."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents import Reason

Rows = npt.NDArray[np.int64]
BATCH_ROWS = 1 << 16


class DroppedRows:
    """`dropped_rows.parquet`. A file that cannot be decoded ends where that is found, and `problem` says why.

    count: rows so far. reasons: how many of them have which. ascend: whether their rows ascend.
    """

    def __init__(self, path: Path) -> None:
        self.count = 0
        self.reasons: Counter[Reason] = Counter()
        self.ascend = True
        self.problem = ""
        self._path = path
        self._last = -1
        self._batches = self._read()
        self._next: Rows | None = next(self._batches, None)

    def up_to(self, row: int) -> Rows:
        """The rows of the data set that were dropped and not returned yet, up to one, int64 (n,)."""
        found: list[Rows] = [np.empty(0, np.int64)]
        while self._next is not None:
            stop = int(np.searchsorted(self._next, row, "right"))
            found.append(self._next[:stop])
            if stop < len(self._next):
                self._next = self._next[stop:]
                break
            self._next = next(self._batches, None)
        return np.concatenate(found)

    def finish(self) -> None:
        """Read what is left."""
        while self._next is not None:
            self._next = next(self._batches, None)

    def _read(self) -> Iterator[Rows]:
        try:
            with pq.ParquetFile(pa.OSFile(str(self._path))) as parquet:
                for batch in parquet.iter_batches(BATCH_ROWS, columns=["row", "reason"]):
                    yield self._counted(batch)
        except (pa.ArrowException, OSError, KeyError) as error:
            self.problem = f"cannot be decoded: {error}"

    def _counted(self, batch: pa.RecordBatch) -> Rows:
        rows: Rows = batch["row"].to_numpy()
        self.ascend = self.ascend and bool((np.diff(rows, prepend=self._last) > 0).all())
        if len(rows):
            self._last = int(rows[-1])
        self.count += len(rows)
        self.reasons.update({entry["values"]: entry["counts"] for entry in batch["reason"].value_counts().to_pylist()})
        return rows
