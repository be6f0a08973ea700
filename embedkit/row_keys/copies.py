"""From where the vectors of rows are copied: an earlier run, an id there, and the key of the vector that was found."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from embedkit.row_keys.arrays import arrays_from_bytes
from embedkit.row_keys.keys import Keys

EMBEDDED = -1
"""In place of a run's place: the text is embedded, or is empty."""


class CopiedRows(NamedTuple):
    """Rows of one view whose vectors come from one run. Arrays of n rows, in the order of `ids`.

    rows: positions among the rows of the copies. ids: in the run. vectors: keys of the vectors.
    """

    rows: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    vectors: Keys


@dataclass(frozen=True)
class Copies:
    """Where the vectors of some rows come from, per view.

    runs: the reused run, by its place in Request.reuse (0 is the first that was typed), or EMBEDDED, int16 (rows,
    views). ids: in that run, int64 (rows, views). vectors: key of the vector, uint64 (rows, views, 2). ids and vectors
    are 0 where nothing is copied.
    """

    runs: npt.NDArray[np.int16]
    ids: npt.NDArray[np.int64]
    vectors: Keys

    @property
    def are_copied(self) -> npt.NDArray[np.bool_]:
        """Which texts are copied, bool (rows, views)."""
        copied: npt.NDArray[np.bool_] = self.runs != EMBEDDED
        return copied

    def take(self, rows: npt.NDArray[np.int64] | slice) -> "Copies":
        """Those of some rows, by position."""
        return Copies(self.runs[rows], self.ids[rows], self.vectors[rows])

    def of_run(self, run: int, view: int) -> CopiedRows:
        """What is copied from one run in one view, both by their places.

        In the order of ids, so that a matrix on disk is read from front to back.
        """
        rows = np.flatnonzero(self.runs[:, view] == run)
        rows = rows[np.argsort(self.ids[rows, view], kind="stable")]
        return CopiedRows(rows, self.ids[rows, view], self.vectors[rows, view])

    def to_bytes(self) -> bytes:
        """A safetensors file with the three arrays."""
        return save({"ids": self.ids, "runs": self.runs, "vectors": self.vectors})


def no_copies(rows: int, views: int) -> Copies:
    """Copies of rows that are all embedded."""
    shape = (rows, views)
    return Copies(np.full(shape, EMBEDDED, np.int16), np.zeros(shape, np.int64), np.zeros((*shape, 2), np.uint64))


def copies_from_bytes(data: bytes | bytearray, rows: int, views: int) -> Copies:
    """The copies in a file's bytes. Raises ValueError if it is no file of copies of so many rows and views."""
    shapes = {"runs": (rows, views), "ids": (rows, views), "vectors": (rows, views, 2)}
    return Copies(*arrays_from_bytes(data, shapes, "copies"))


def joined_copies(pieces: list[Copies], views: int) -> Copies:
    """The copies of the rows of all pieces, in order. views: of each piece; there may be none."""
    every = [no_copies(0, views), *pieces]
    return Copies(
        np.concatenate([piece.runs for piece in every]),
        np.concatenate([piece.ids for piece in every]),
        np.concatenate([piece.vectors for piece in every]),
    )
