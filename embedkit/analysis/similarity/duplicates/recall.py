"""The recall of an approximate search: pairs of a few sampled rows, counted at each threshold."""

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates.collector import Both, Collector, Floats, Ids, Positions
from embedkit.analysis.similarity.duplicates.groups import GroupCollector
from embedkit.analysis.similarity.duplicates.needless import Joined, Needless
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
        self._count(one[kept], two[kept], level)

    def _count(self, one: Ids, two: Ids, level: Ids) -> None:
        self._of_level += np.bincount(level, minlength=len(self._of_level))

    def needless(self, a: Ids, b: Ids, is_once: bool) -> Needless | None:
        """As in Collector: all pairs are looked at."""
        return None

    def with_own(self, ids: Ids, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Labels of rows as in `Joined`, but each sampled row has its own, below 0: all of its pairs count."""
        at = self._thresholds.positions_of(ids)
        return np.where(self._is_sampled[at], -1 - at, labels).astype(np.int32)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Pairs that reach each threshold, int64 (thresholds,)."""
        return np.cumsum(self._of_level[::-1])[::-1][1:]


class GroupedCounter(SampleCounter):
    """Counts also those of the pairs whose rows are in one group of a search that has ended, at each threshold."""

    def __init__(self, merged: Merged, thresholds: Thresholds, sampled: Ids, groups: GroupCollector) -> None:
        super().__init__(merged, thresholds, sampled)
        self._groups = groups
        self.grouped = np.zeros(len(thresholds.values), np.int64)

    def _count(self, one: Ids, two: Ids, level: Ids) -> None:
        super()._count(one, two, level)
        self.grouped += self._groups.pairs_in_groups(one, two, level)


class WithSample(Both):
    """Gives each pair to a collector, and to the counter of a sample with the same thresholds."""

    def __init__(self, found: Collector, sample: SampleCounter) -> None:
        super().__init__(found, sample)
        self._found, self._sample = found, sample

    def needless(self, a: Ids, b: Ids, is_once: bool) -> Needless | None:
        """As in Collector: those of the first one, except for pairs with a sampled row."""
        known = self._found.needless(a, b, is_once)
        if known is None or known.joined is None or known.counted is not None:
            return None
        joined = known.joined
        labels = self._sample.with_own(a, joined.a), self._sample.with_own(b, joined.b)
        return Needless(joined=Joined(joined.least, *labels))
