"""The rows that are read back after an export: the ends of each file, and some between, the same every time."""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from embedkit.errors import EmbedkitError
from embedkit.export.forms import Array
from embedkit.export.part import Job
from embedkit.export.table import Table

ROWS = 32
"""Rows that are read back of a file, if nothing else is said."""
ID_ROWS = 1 << 16
"""Ids that are read at once."""


def sampled(start: int, stop: int, rows: int = ROWS) -> list[int]:
    """At most `rows` rows of [start, stop): both ends, and others at random, ascending."""
    between = np.random.default_rng(start).integers(start, stop, rows - 2)
    return sorted({start, stop - 1, *between.tolist()})


def require_equal(where: str, table: Table, row: int, found: Array, job: Job) -> None:
    """Raise EmbedkitError unless a vector that was read back, (width,), is the stored form of the run's own."""
    wanted = job.form.stored(table.vectors(row, row + 1))[0]
    if found.shape != wanted.shape or found.dtype.itemsize != wanted.dtype.itemsize or (found != wanted).any():
        raise EmbedkitError(f"{where}: the vector of row {row} is not that of the run; export it again")


def require_count(where: str, found: int, wanted: int) -> None:
    """Raise EmbedkitError unless a file has as many rows as it should."""
    if found != wanted:
        raise EmbedkitError(f"{where}: has {found} rows, and {wanted} were written; export it again")


def ids_of(table: Table, start: int, stop: int) -> npt.NDArray[np.int64]:
    """Ids of rows [start, stop) of a table, int64."""
    found: npt.NDArray[np.int64] = np.concatenate(
        [_numbers(lines) for lines in table.lines(["id"], start, stop, max(stop - start, 1))] or [np.empty(0, np.int64)]
    )
    return found


def ids_at(table: Table, rows: list[int]) -> dict[int, int]:
    """Ids of some rows of a table, ascending, by row. Reads those between, too."""
    found: dict[int, int] = {}
    at = rows[0]
    for lines in table.lines(["id"], rows[0], rows[-1] + 1, ID_ROWS):
        ids = _numbers(lines)
        found |= {row: int(ids[row - at]) for row in rows if at <= row < at + len(ids)}
        at += len(ids)
    return found


def _numbers(lines: pa.Table) -> npt.NDArray[np.int64]:
    """The column `id`, int64. Without polars, pyarrow imports pandas for this."""
    column = pl.from_arrow(lines["id"])
    assert isinstance(column, pl.Series)
    return column.to_numpy()
