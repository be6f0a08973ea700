"""Several thresholds at once: which of them a pair reaches."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates.collector import Floats, Ids, Positions
from embedkit.analysis.similarity.neighbors import cosines_of, rounding

THRESHOLDS = (0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999)
"""Cosines at which groups are counted, if the search has them. What is a duplicate depends on the model."""

Levels = npt.NDArray[np.int64]


def thresholds_from(lowest: float, more: Iterable[float] = ()) -> tuple[float, ...]:
    """The usual thresholds from `lowest` on, `lowest` itself, and more, ascending."""
    return tuple(sorted({lowest, *more, *(one for one in THRESHOLDS if one >= lowest)}))


class Thresholds:
    """Ascending thresholds. The level of a pair is how many of them its cosine reaches, from 0.

    A float32 cosine decides the level unless it is within its rounding of a threshold. Then the cosine is computed
    again in float64.
    """

    def __init__(self, merged: Merged, values: Iterable[float], across_sources: bool = False) -> None:
        """across_sources: a pair of two rows of the same source reaches none."""
        self.values = np.array(sorted(values), np.float64)
        self._matrix = merged.matrix
        self._slack = rounding(merged.dim)
        down = np.float32(-np.inf)
        self.possible = np.nextafter((self.values - self._slack).astype(np.float32), down)
        """Smallest float32 cosine of a pair that may reach each threshold, float32 (thresholds,)."""
        self._codes = merged.rows["source"].to_numpy()
        self._ids = merged.ids
        self._positions = Positions(self._ids)
        self._across_sources = across_sources

    @property
    def min_cosine(self) -> float:
        """The smallest float32 cosine of a pair whose exact cosine may reach a threshold."""
        return float(self.values[0] - self._slack)

    def positions_of(self, ids: Ids) -> Ids:
        """Positions of ids among the rows, int64 (n,)."""
        return self._positions.of(ids)

    def positions(self, a: Ids, b: Ids, scores: Floats) -> tuple[Ids, Ids, Floats]:
        """Positions of the rows of pairs of ids, without the pairs that do not count."""
        one, two = self._positions.of(a), self._positions.of(b)
        if not self._across_sources:
            return one, two, scores
        counts = self._codes[one] != self._codes[two]
        return one[counts], two[counts], scores[counts]

    def highest(self, scores: Floats) -> Levels:
        """The highest level that pairs may have by their float32 cosines, int64 (n,)."""
        found: Levels = np.searchsorted(self.possible, scores, side="right")
        return found

    def exact(self, one: Ids, two: Ids, scores: Floats) -> Levels:
        """The levels of pairs of positions with these float32 cosines, int64 (n,)."""
        found = self.highest(scores)
        certain = self._level(scores.astype(np.float64) - self._slack)
        unsure = np.flatnonzero(certain < found)
        a, b = self._ids[one[unsure]], self._ids[two[unsure]]
        found[unsure] = self._level(cosines_of(self._matrix, a, self._matrix, b))
        return found

    def _level(self, cosines: npt.NDArray[np.float64]) -> Levels:
        found: Levels = np.searchsorted(self.values, cosines, side="right")
        return found
