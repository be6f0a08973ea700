"""The nearest selected row of every row, brought up to date as rows are selected."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.subset.row_tiles import RowTiles

CENTERS = 16_384
"""Selected rows compared with all rows in one pass: 64 MB of 1,024 float32 each."""
STEPS = np.float32(2**20)
"""Cosines are rounded to multiples of 1 / STEPS, about a millionth. Float32 products of vectors of norm 1 differ by
less, usually, when they are summed in another order; so cosines that should be equal are equal."""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def rounded(cosines: Floats) -> Floats:
    """Cosines as multiples of 1 / STEPS, at most 1. Float32 has them exactly."""
    found: Floats = np.minimum(np.rint(cosines * STEPS) / STEPS, np.float32(1))
    return found


class NearestSelected:
    """Of every row, the cosine to its nearest selected row, and which one that is.

    cosines: float32 (n,), rounded; -inf before any row is selected. nearest: number of the nearest selected row in the
    order of selection, from 0, int32 (n,); -1 before. count: selected rows.
    """

    def __init__(self, rows: RowTiles) -> None:
        self._rows = rows
        self.cosines: Floats = np.full(len(rows), -np.inf, np.float32)
        self.nearest = np.full(len(rows), -1, np.int32)
        self.count = 0

    def add(self, selected: Ids, advance: Callable[[int], object] = lambda rows: None) -> None:
        """Compare all rows with newly selected ones, by position, int64 (m,). `advance` gets the rows compared."""
        for start in range(0, len(selected), CENTERS):
            some = selected[start : start + CENTERS]
            self._compare(self._rows.put(some), advance)
            self.cosines[some] = 1
            self.nearest[some] = self.count + np.arange(len(some))  # also if another selected row has its vector
            self.count += len(some)

    @staticmethod
    def passes(selected: int) -> int:
        """Passes over all rows that `add` makes for so many selected rows."""
        return -(-selected // CENTERS)

    def _compare(self, centers: Any, advance: Callable[[int], object]) -> None:
        for piece, tile in self._rows.tiles():
            at, products = self._rows.product.row_maxima(tile, centers)
            cosines = rounded(products / self._rows.norms[piece])
            is_nearer = cosines > self.cosines[piece]
            self.cosines[piece][is_nearer] = cosines[is_nearer]
            self.nearest[piece][is_nearer] = self.count + at[is_nearer]
            advance(len(cosines))

    def rows_nearest(self) -> Ids:
        """How many rows each selected row is the nearest of, itself included, int64 (count,)."""
        counts: Ids = np.bincount(self.nearest[self.nearest >= 0], minlength=self.count).astype(np.int64)
        return counts
