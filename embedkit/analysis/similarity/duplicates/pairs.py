"""The pairs of near-duplicates: all counted by source, the nearest ones listed."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates.collector import Floats, Ids, Positions
from embedkit.analysis.similarity.duplicates.needless import Counted, Needless, PairCounts
from embedkit.analysis.similarity.duplicates.search import Method, Search
from embedkit.analysis.similarity.duplicates.source_pairs import SourcePairs
from embedkit.analysis.similarity.neighbors import cosines_of, rounding

PRUNE_PAIRS = 1 << 20
"""Pairs that are looked at together, and waiting ones from which the list is cut to its length."""
DIGITS = 12
"""Decimals of a listed cosine. Equal vectors have 1, and pairs of them are listed by their ids."""
MAX_SOURCES_ELSEWHERE = 20_000
"""Sources up to which a GPU counts pairs: 1.6 GB of its memory."""
MAX_SOURCE_PAIRS = 1_000_000
"""Pairs of sources that are listed, at most. A template of 12,000 sources has 72 million."""


@dataclass(frozen=True)
class Duplicates:
    """Pairs of rows with a cosine of at least `threshold`.

    pairs: id_a < id_b, cosine (float64, rounded to 12 decimals), source_a, source_b; by falling cosine, then by ids; at
    most `max_pairs`. by_source: source_a <= source_b, and the number of all their pairs; at most MAX_SOURCE_PAIRS
    lines, those with most pairs. levels: groups of near-duplicates at several thresholds, as `GroupCollector.levels`,
    with the recall at each. total: all pairs found, listed or not. rows: number
    of rows compared. method: exact or approximate. recall, of an approximate search: the share that it found of the
    `sampled_pairs` pairs which an exact search finds for `sampled_rows` random rows; None if there are no such pairs,
    or if the search was exact.
    """

    threshold: float
    pairs: pl.DataFrame
    by_source: pl.DataFrame
    levels: pl.DataFrame
    total: int
    max_pairs: int
    rows: int
    method: Method
    recall: float | None = None
    sampled_rows: int = 0
    sampled_pairs: int = 0

    @property
    def is_capped(self) -> bool:
        """Whether there are more pairs than are listed."""
        return self.total > self.pairs.height


class PairCollector:
    """Takes pairs as they are found. Counts all of them by source, and keeps those with the largest cosines."""

    def __init__(self, merged: Merged, threshold: float, max_pairs: int) -> None:
        self._merged = merged
        self._threshold = threshold
        self._max_pairs = max_pairs
        self._slack = rounding(merged.dim)
        self._codes = merged.rows["source"].to_numpy().astype(np.int64)
        self._positions = Positions(merged.ids)
        self._counts = SourcePairs(len(merged.sources))
        self._kept = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        self._waiting = 0
        self._floor = threshold if max_pairs else np.inf  # a pair with a smaller cosine is not listed
        self._last = np.iinfo(np.int64).max  # nor one whose lower id is larger
        codes = len(merged.sources)
        self._elsewhere = PairCounts(codes) if codes <= MAX_SOURCES_ELSEWHERE else None

    @property
    def min_cosine(self) -> float:
        """The smallest float32 cosine of a pair whose exact cosine may reach the threshold."""
        return self._threshold - self._slack

    @property
    def total(self) -> int:
        """Pairs found so far."""
        return self._counts.total

    def add(self, a: Ids, b: Ids, scores: Floats) -> None:
        """Add pairs of ids with a float32 cosine of at least `min_cosine`, each pair once, its ids in any order.

        The cosine is computed again in float64 where it decides something: whether the pair reaches the threshold, or
        whether it is listed.
        """
        for start in range(0, len(a), PRUNE_PAIRS):  # a tile may have sixteen times as many
            batch = slice(start, start + PRUNE_PAIRS)
            self._add(np.minimum(a[batch], b[batch]), np.maximum(a[batch], b[batch]), scores[batch])

    def needless(self, a: Ids, b: Ids, is_once: bool) -> Needless | None:
        """As in Collector: pairs that are certainly near and not listed. They are counted where they are found."""
        if not is_once or self._elsewhere is None:
            return None
        one, two = (self._codes[self._positions.of(ids)] for ids in (a, b))
        below, listed = self._floor - self._slack, a <= self._last
        counted = Counted(self._threshold + self._slack, below, listed, one, two, self._elsewhere)
        return Needless(counted=counted)

    def _add(self, low: Ids, high: Ids, scores: Floats) -> None:
        is_uncertain = scores <= self._threshold + self._slack
        may_be_listed = (scores >= self._floor - self._slack) & (low <= self._last)
        chosen = np.flatnonzero(is_uncertain | may_be_listed)
        cosines = np.full(len(low), np.inf)  # certainly above the threshold
        matrix = self._merged.matrix
        cosines[chosen] = cosines_of(matrix, low[chosen], matrix, high[chosen])
        is_pair = cosines >= self._threshold
        self._count(low[is_pair], high[is_pair])
        cosines[chosen] = np.round(cosines[chosen], DIGITS)
        keep = chosen[is_pair[chosen] & (cosines[chosen] >= self._floor)]
        if len(keep):
            self._kept.append((low[keep], high[keep], cosines[keep]))
            self._waiting += len(keep)
            if self._waiting > max(2 * self._max_pairs, PRUNE_PAIRS):
                self._prune()

    def _count(self, low: Ids, high: Ids) -> None:
        one, two = (self._codes[self._positions.of(ids)] for ids in (low, high))
        self._counts.add(one, two)

    def _prune(self) -> tuple[Ids, Ids, npt.NDArray[np.float64]]:
        """Sort the kept pairs and cut them to `max_pairs`."""
        a, b, cosines = (np.concatenate(column) for column in zip(*self._kept, strict=True))
        order = np.lexsort((b, a, -cosines))[: self._max_pairs]
        self._kept = [(a[order], b[order], cosines[order])]
        self._waiting = 0
        if self._max_pairs and len(order) == self._max_pairs:
            self._floor = float(cosines[order[-1]])
            if self._floor == 1:  # all listed rows are equal, as no other pair is nearer
                self._last = int(a[order[-1]])
        return self._kept[0]

    def result(self, search: Search, levels: pl.DataFrame) -> Duplicates:
        """Everything found, with how it was searched, and the groups at several thresholds."""
        for keys, counts in self._elsewhere.blocks() if self._elsewhere else ():
            self._counts.add_keys(keys, counts)
        a, b, cosines = self._prune()
        names = np.array(self._merged.sources, dtype=object)
        sources = [names[self._codes[self._positions.of(ids)]] for ids in (a, b)]
        pairs = {"id_a": a, "id_b": b, "cosine": cosines, "source_a": list(sources[0]), "source_b": list(sources[1])}
        schema = {"source_a": pl.String, "source_b": pl.String}
        low, high, counts = self._counts.most(MAX_SOURCE_PAIRS)
        by_source = {"source_a": list(names[low]), "source_b": list(names[high]), "pairs": counts}
        return Duplicates(
            threshold=self._threshold,
            pairs=pl.DataFrame(pairs, schema_overrides=schema),
            by_source=pl.DataFrame(by_source, schema_overrides=schema),
            levels=levels,
            total=self.total,
            max_pairs=self._max_pairs,
            rows=search.rows,
            method=search.method,
            recall=search.recall_at(self._threshold),
            sampled_rows=search.sampled_rows,
            sampled_pairs=search.pairs_at(self._threshold),
        )
