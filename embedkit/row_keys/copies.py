"""From where the vectors of rows are copied: an earlier run, an id there, and the key of the vector that was found."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from embedkit.row_keys.keys import Keys

EMBEDDED = -1
"""In place of a run: the text is embedded, or is empty."""


@dataclass(frozen=True)
class Copies:
    """Where the vectors of some rows come from, per view.

    runs: place in Request.reuse, or EMBEDDED, int16 (rows, views). ids: in that run, int64 (rows, views). vectors: key
    of the vector, uint64 (rows, views, 2). ids and vectors are 0 where nothing is copied.
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

    def to_bytes(self) -> bytes:
        """A safetensors file with the three arrays."""
        return save({"ids": self.ids, "runs": self.runs, "vectors": self.vectors})


def no_copies(rows: int, views: int) -> Copies:
    """Copies of rows that are all embedded."""
    shape = (rows, views)
    return Copies(np.full(shape, EMBEDDED, np.int16), np.zeros(shape, np.int64), np.zeros((*shape, 2), np.uint64))


def copies_from_bytes(data: bytes | bytearray, rows: int, views: int) -> Copies:
    """The copies in a file's bytes. Raises ValueError if it is no file of copies of so many rows and views."""
    try:
        found = load(bytes(data))
        copies = Copies(found["runs"], found["ids"], found["vectors"])
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"no file of copies: {error}") from None
    shape = (rows, views)
    if (copies.runs.shape, copies.ids.shape, copies.vectors.shape) != (shape, shape, (*shape, 2)):
        raise ValueError(f"copies of shape {copies.runs.shape}, not {shape}")
    return copies


def joined_copies(pieces: list[Copies], views: int) -> Copies:
    """The copies of the rows of all pieces, in order. views: of each piece; there may be none."""
    every = [no_copies(0, views), *pieces]
    return Copies(
        np.concatenate([piece.runs for piece in every]),
        np.concatenate([piece.ids for piece in every]),
        np.concatenate([piece.vectors for piece in every]),
    )
