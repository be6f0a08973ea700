"""Groups of near-duplicates at several thresholds at once: connected components of the pairs, in one pass over them.

At each threshold, a disjoint-set forest (Galler and Fisher 1964) has one parent per row. A batch of pairs is first cut
to those that join two trees. Most of the pairs of a template do not, so that billions of pairs cost little. scipy finds
the components among the roots of the others.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.duplicates.collector import Floats, Ids
from embedkit.analysis.similarity.duplicates.needless import Joined, Needless
from embedkit.analysis.similarity.duplicates.thresholds import Thresholds

WAITING_PAIRS = 1 << 16
"""Pairs that wait until they are looked at together: of most tiles there are few."""
FIRST_PAIRS, BATCH_PAIRS = 1 << 12, 1 << 18
"""Pairs that are looked at together, first and at most. The next batch is cut by what those before have joined: the
first pairs of a template join most of its rows."""

Labels = npt.NDArray[np.int32]


class GroupCollector:
    """Takes pairs as they are found, and joins their rows at each threshold that the pair reaches.

    Exact for all thresholds, given the pairs. It holds 4 bytes per row and threshold, and 24 per row for a forest.
    """

    def __init__(self, merged: Merged, thresholds: Thresholds, forest_at: float | None = None) -> None:
        """forest_at: one of the thresholds, at which the pairs that join two trees are kept; None for none."""
        self._thresholds = thresholds
        self._waiting: list[tuple[Ids, Ids, Floats]] = []
        self._waits = 0
        self._trees = [_Trees(merged.rows.height, value == forest_at) for value in thresholds.values.tolist()]

    @property
    def min_cosine(self) -> float:
        """The smallest float32 cosine of a pair whose exact cosine may reach a threshold."""
        return self._thresholds.min_cosine

    def add(self, a: Ids, b: Ids, scores: Floats) -> None:
        """As in Collector."""
        self._waiting.append((a, b, scores))
        self._waits += len(a)
        if self._waits >= WAITING_PAIRS:
            self._settle()

    def needless(self, a: Ids, b: Ids, is_once: bool) -> Needless:
        """As in Collector: pairs whose rows are in one group at the highest level that they may reach."""
        one, two = self._thresholds.positions_of(a), self._thresholds.positions_of(b)
        labels = (np.stack([trees.roots(rows) for trees in self._trees]) for rows in (one, two))
        return Needless(joined=Joined(self._thresholds.possible, *labels))

    def _settle(self) -> None:
        """Join the rows of the pairs that wait."""
        if not self._waiting:
            return
        a, b, scores = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._waits = [], 0
        start, size = 0, FIRST_PAIRS
        while start < len(a):
            batch = slice(start, start + size)
            self._join(*self._thresholds.positions(a[batch], b[batch], scores[batch]))
            start, size = start + size, min(2 * size, BATCH_PAIRS)

    def _join(self, one: Ids, two: Ids, scores: Floats) -> None:
        # A pair that is joined at the highest level which it may reach is joined at all lower ones, too.
        kept = np.flatnonzero(self._is_open(one, two, self._thresholds.highest(scores)))
        one, two = one[kept], two[kept]
        level = self._thresholds.exact(one, two, scores[kept])
        kept = np.flatnonzero(self._is_open(one, two, level))
        one, two, level = one[kept], two[kept], level[kept]
        for at, trees in enumerate(self._trees):
            reaches = level > at
            trees.join(one[reaches], two[reaches])

    def _is_open(self, one: Ids, two: Ids, level: Ids) -> npt.NDArray[np.bool_]:
        """Whether the rows of a pair are still apart at the pair's level, bool (n,); False at level 0."""
        found = np.zeros(len(one), bool)
        for at, trees in enumerate(self._trees, 1):
            here = np.flatnonzero(level == at)
            found[here] = trees.roots(one[here]) != trees.roots(two[here])
        return found

    def labels(self, threshold: float) -> Labels:
        """The group of each row at one of the thresholds, int32 (n,): the position of the group's lowest row.

        A row that is near no other is a group of its own.
        """
        return self._at(threshold).labels()

    def pairs_in_groups(self, one: Ids, two: Ids, level: Ids) -> Ids:
        """Of pairs of positions with these levels, how many are in one group at each threshold, int64 (thresholds,).

        A pair counts at the thresholds that it reaches.
        """
        self._settle()
        found = []
        for at, trees in enumerate(self._trees):
            reaches = np.flatnonzero(level > at)
            found.append(np.count_nonzero(trees.roots(one[reaches]) == trees.roots(two[reaches])))
        return np.array(found, np.int64)

    def forest(self, threshold: float) -> tuple[Ids, Ids]:
        """Pairs of positions that together join the groups at `forest_at`, one less than a group has rows."""
        return self._at(threshold).edges()

    def _at(self, threshold: float) -> "_Trees":
        self._settle()
        number: int = self._thresholds.values.tolist().index(threshold)
        return self._trees[number]

    def levels(self) -> pl.DataFrame:
        """The groups at each threshold, by rising threshold.

        threshold; groups: of two rows or more; rows_in_groups; largest_group: its rows; rows_left: rows of the data set
        if one row per group stays, rows without a text included.
        """
        self._settle()
        found = []
        for threshold, trees in zip(self._thresholds.values.tolist(), self._trees, strict=True):
            sizes = np.bincount(trees.labels())
            sizes = sizes[sizes > 1]
            grouped, rows = int(sizes.sum()), trees.rows
            largest = int(sizes.max(initial=0))
            found.append((threshold, len(sizes), grouped, largest, rows - grouped + len(sizes)))
        names = ("threshold", "groups", "rows_in_groups", "largest_group", "rows_left")
        schema = dict(zip(names, (pl.Float64, *(pl.Int64,) * 4), strict=True))
        return pl.DataFrame(found, schema, orient="row")


class _Trees:
    """A disjoint-set forest. The root of a tree is its lowest row."""

    def __init__(self, rows: int, keeps_edges: bool) -> None:
        self.rows = rows
        self._parents: Labels = np.arange(rows, dtype=np.int32)
        self._edges: list[tuple[Ids, Ids]] | None = [] if keeps_edges else None

    def roots(self, at: Ids) -> Labels:
        """The root of each row, int32 (n,). The rows' paths to it are made short."""
        found = self._parents[at]
        above = self._parents[found]
        if np.array_equal(above, found):
            return found
        while not np.array_equal(above, found):
            found = self._parents[above]
            above = self._parents[found]
        self._parents[at] = found
        return found

    def labels(self) -> Labels:
        """The root of every row, int32 (rows,)."""
        return self.roots(np.arange(self.rows))

    def join(self, one: Ids, two: Ids) -> None:
        """Join the trees of the rows of each pair."""
        a, b = self.roots(one), self.roots(two)
        apart = np.flatnonzero(a != b)
        if not len(apart):
            return
        nodes, at = np.unique(np.concatenate([a[apart], b[apart]]), return_inverse=True)
        ends = at[: len(apart)], at[len(apart) :]
        if self._edges is not None:
            chosen = apart[_spanning(*ends, len(nodes))]
            self._edges.append((one[chosen], two[chosen]))
        csgraph = optional_import("scipy.sparse.csgraph")
        count, of = csgraph.connected_components(
            _graph(*ends, np.ones(len(apart), np.int8), len(nodes)), directed=False
        )
        lowest = np.full(count, self.rows)
        np.minimum.at(lowest, of, nodes)
        self._parents[nodes] = lowest[of]

    def edges(self) -> tuple[Ids, Ids]:
        """The pairs that joined two trees, int64 (rows - trees,) each."""
        assert self._edges is not None
        none = np.empty(0, np.int64)
        one, two = (np.concatenate([none, *(edge[end] for edge in self._edges)]) for end in (0, 1))
        return one, two


def _spanning(one: Ids, two: Ids, nodes: int) -> Ids:
    """Which edges of a graph together make a spanning forest, ascending."""
    low, high = np.minimum(one, two), np.maximum(one, two)
    # Of several edges between the same nodes, the first counts. A weight of 0 would be no edge.
    _, first = np.unique(low * nodes + high, return_index=True)
    csgraph = optional_import("scipy.sparse.csgraph")
    tree = csgraph.minimum_spanning_tree(_graph(low[first], high[first], first + 1.0, nodes))
    chosen: Ids = np.sort(tree.data.astype(np.int64)) - 1
    return chosen


def _graph(one: Ids, two: Ids, weights: npt.NDArray[Any], nodes: int) -> Any:
    return optional_import("scipy.sparse").coo_array((weights, (one, two)), shape=(nodes, nodes)).tocsr()
