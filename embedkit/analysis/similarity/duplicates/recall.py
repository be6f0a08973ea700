"""The recall of an approximate search: pairs of a few sampled rows, counted at each threshold."""

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates.collector import Floats, Ids, Positions
from embedkit.analysis.similarity.duplicates.thresholds import Thresholds


class SampleCounter:
    """Counts the pairs that have a sampled row, at each threshold."""

    def __init__(self, merged: Merged, thresholds: Thresholds, sampled: Ids) -> None:
        """sampled: ids of the sampled rows."""
        self._thresholds = thresholds
        self._is_sampled = np.zeros(merged.rows.height, bool)
        self._is_sampled[Positions(merged.ids).of(sampled)] = True
        self._of_level = np.zeros(len(thresholds.values) + 1, np.int64)

    @property
    def min_cosine(self) -> float:
        """The smallest float32 cosine of a pair whose exact cosine may reach a threshold."""
        return self._thresholds.min_cosine

    def add(self, a: Ids, b: Ids, scores: Floats) -> None:
        """As in Collector."""
        one, two, scores = self._thresholds.positions(a, b, scores)
        kept = np.flatnonzero(self._is_sampled[one] | self._is_sampled[two])
        level = self._thresholds.exact(one[kept], two[kept], scores[kept])
        self._of_level += np.bincount(level, minlength=len(self._of_level))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Pairs that reach each threshold, int64 (thresholds,)."""
        return np.cumsum(self._of_level[::-1])[::-1][1:]
