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
        self._codes = merged.rows["source"].to_numpy()
        self._ids = merged.ids
        self._positions = Positions(self._ids)
        self._across_sources = across_sources

    @property
    def min_cosine(self) -> float:
        """The smallest float32 cosine of a pair whose exact cosine may reach a threshold."""
        return float(self.values[0] - self._slack)

    def positions(self, a: Ids, b: Ids, scores: Floats) -> tuple[Ids, Ids, Floats]:
        """Positions of the rows of pairs of ids, without the pairs that do not count."""
        one, two = self._positions.of(a), self._positions.of(b)
        if not self._across_sources:
            return one, two, scores
        counts = self._codes[one] != self._codes[two]
        return one[counts], two[counts], scores[counts]

    def bounds(self, scores: Floats) -> tuple[Levels, Levels]:
        """The lowest and the highest level that pairs may have by their float32 cosines, int64 (n,) each."""
        wide = scores.astype(np.float64)
        return self._level(wide - self._slack), self._level(wide + self._slack)

    def exact(self, one: Ids, two: Ids) -> Levels:
        """The levels of pairs of positions by their float64 cosines, int64 (n,)."""
        low, high = np.minimum(one, two), np.maximum(one, two)
        return self._level(cosines_of(self._matrix, self._ids[low], self._matrix, self._ids[high]))

    def _level(self, cosines: npt.NDArray[np.float64]) -> Levels:
        found: Levels = np.searchsorted(self.values, cosines, side="right")
        return found
