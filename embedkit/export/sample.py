"""The rows that are read back after an export: the ends of each file, and some between, the same every time."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from embedkit.errors import EmbedkitError
from embedkit.export.forms import Array
from embedkit.export.part import Job
from embedkit.export.table import Table

ROWS = 64
"""Rows that are read back of a file, if nothing else is said."""


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
        [lines["id"].to_numpy() for lines in table.lines(["id"], start, stop, max(stop - start, 1))]
        or [np.empty(0, np.int64)]
    )
    return found


def id_of(table: Table) -> Callable[[int], int]:
    """A function that gives the id of a row of a table."""
    return lambda row: int(ids_of(table, row, row + 1)[0])
