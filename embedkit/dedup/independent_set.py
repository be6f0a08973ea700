"""The greedy maximal independent set: in order of preference, a row stays unless a row that stays is near it.

So each removed row has a row near it that stays, and no two rows that stay are near each other. Rows of different
groups (connected components at the threshold) are never near each other: each group is decided by itself, and exactly,
whatever the search has missed within it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates import TileProduct, choose_tile_product
from embedkit.analysis.similarity.neighbors import cosines_of, rounding

BLOCK_ROWS = 2048
"""Rows that are compared at once, with each other or with as many rows that stay: 16 MB of float32 cosines."""

Ids = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Progress = Callable[[int], None]


class Groups:
    """The groups of near-duplicates at one threshold, and the cosines within them.

    Rows are positions in `merged.rows`. A batch is the rows of some whole groups, by group and in order of preference.
    """

    def __init__(
        self,
        merged: Merged,
        labels: Labels,
        ranks: Ids,
        threshold: float,
        across_sources: bool = False,
        block_rows: int = BLOCK_ROWS,
        product: TileProduct | None = None,
    ) -> None:
        """labels: group of each row, int32 (n,). ranks: of each row, int64 (n,); a low rank is preferred.

        across_sources: rows of the same source are not near. block_rows: it sets the memory, never the result.
        product: where blocks are multiplied; None for what the machine has.
        """
        self._merged = merged
        self._ids = merged.ids
        self._labels = labels
        self._codes = merged.rows["source"].to_numpy()
        self._threshold = threshold
        self._slack = rounding(merged.dim)
        self._across_sources = across_sources
        self._block_rows = block_rows
        self._product = product or choose_tile_product()
        sizes = np.bincount(labels, minlength=1)
        grouped = np.flatnonzero(sizes[labels] > 1)
        self._order: Ids = grouped[np.lexsort((ranks[grouped], labels[grouped]))]
        borders = np.flatnonzero(np.diff(labels[self._order])) + 1
        self._ends: Ids = np.append(borders, len(grouped)) if len(grouped) else borders

    @property
    def rows(self) -> int:
        """Rows that are in a group of two or more."""
        return len(self._order)

    @property
    def best(self) -> Ids:
        """The most preferred row of each group, int64 (groups,)."""
        return self._order[np.append(0, self._ends[:-1])] if len(self._ends) else self._order

    def batches(self) -> Iterator[Ids]:
        """Whole groups with at most `block_rows` rows together, or one larger group."""
        start = 0
        while start < self.rows:
            fits = int(np.searchsorted(self._ends, start + self._block_rows, side="right"))
            next_end = int(np.searchsorted(self._ends, start, side="right"))
            stop = int(self._ends[max(fits - 1, next_end)])
            yield self._order[start:stop]
            start = stop

    def independent_set(self, progress: Progress = lambda rows: None) -> Mask:
        """Whether each row stays, bool (n,). Rows in no group stay.

        progress: called with the number of further rows that are decided.
        """
        stays = np.ones(len(self._labels), bool)
        for batch in self.batches():
            stays[batch] = False
            stays[self._chosen(batch, progress)] = True
        return stays

    def _chosen(self, batch: Ids, progress: Progress) -> Ids:
        """The rows of a batch that stay."""
        chosen = batch[:0]
        for block in self._blocks(batch):
            left = block[~self._is_near_any(block, chosen)]
            chosen = np.concatenate([chosen, left[self._resolve(left)]])
            progress(len(block))
        return chosen

    def _is_near_any(self, rows: Ids, chosen: Ids) -> Mask:
        """Whether each row is near one of the chosen ones, bool (n,)."""
        found = np.zeros(len(rows), bool)
        if not len(chosen):
            return found
        vectors = self._put(rows)
        for others in self._blocks(chosen):
            i, j, scores = self._candidates(rows, vectors, others, self._put(others))
            found[i[scores > self._threshold + self._slack]] = True
            unsure = np.flatnonzero(~found[i])
            is_near = self._cosines(rows[i[unsure]], others[j[unsure]]) >= self._threshold
            found[i[unsure[is_near]]] = True
        return found

    def _resolve(self, rows: Ids) -> Mask:
        """The rule among the rows of a block, bool (n,)."""
        stays = np.ones(len(rows), bool)
        if len(rows) < 2:
            return stays
        vectors = self._put(rows)
        i, j, scores = self._candidates(rows, vectors, rows, vectors)
        later = i < j
        i, j, is_sure = i[later], j[later], scores[later] > self._threshold + self._slack
        starts = np.searchsorted(i, np.arange(len(rows) + 1))
        for at in np.unique(i).tolist():
            if not stays[at]:
                continue
            pairs = slice(starts[at], starts[at + 1])
            near, sure = j[pairs], is_sure[pairs]
            stays[near[sure]] = False
            unsure = near[~sure & stays[near]]
            if len(unsure):
                is_near = self._cosines(np.full(len(unsure), rows[at]), rows[unsure]) >= self._threshold
                stays[unsure[is_near]] = False
        return stays

    def nearest_kept(self, stays: Mask, progress: Progress = lambda rows: None) -> tuple[Ids, Ids, Doubles]:
        """The rows that do not stay, for each the row that stays with the largest cosine, and that cosine in float64.

        int64, int64 and float64 (removed,), by row. Of equal cosines, the more preferred row counts.

        stays: as `independent_set` returns it. progress: called with the number of further rows that are done.
        """
        found = [(self._order[:0], self._order[:0], np.empty(0))]
        for batch in self.batches():
            kept = batch[stays[batch]]
            for removed in self._blocks(batch[~stays[batch]]):
                found.append((removed, *self._nearest(removed, kept)))
                progress(len(removed))
        removed, pair, cosine = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(removed)
        return removed[order], pair[order], cosine[order]

    def _nearest(self, rows: Ids, kept: Ids) -> tuple[Ids, Doubles]:
        pair, best = np.full(len(rows), -1), np.full(len(rows), -np.inf)
        highest = np.full(len(rows), -np.inf, np.float32)
        vectors = self._put(rows)
        for others in self._blocks(kept):
            i, j, scores = self._candidates(rows, vectors, others, self._put(others))
            np.maximum.at(highest, i, scores)
            some = scores >= highest[i] - np.float32(2 * self._slack)
            i, j = i[some], j[some]
            cosines = self._cosines(rows[i], others[j])
            order = np.lexsort((j, -cosines, i))
            at, first = np.unique(i[order], return_index=True)
            first = order[first]
            better = cosines[first] > best[at]
            at, first = at[better], first[better]
            pair[at], best[at] = others[j[first]], cosines[first]
        return pair, best

    def _candidates(self, rows: Ids, vectors: Any, others: Ids, other_vectors: Any) -> tuple[Ids, Ids, Floats]:
        """Numbers of rows and others that may be near each other, by row, and their float32 cosines."""
        i, j, scores = self._product.above(vectors, other_vectors, self._threshold - self._slack)
        one, two = rows[i], others[j]
        counts = self._labels[one] == self._labels[two]
        if self._across_sources:
            counts &= self._codes[one] != self._codes[two]
        return i[counts], j[counts], scores[counts]

    def _put(self, rows: Ids) -> Any:
        return self._product.put(self._merged.vectors(self._ids[rows]))

    def _cosines(self, one: Ids, two: Ids) -> Doubles:
        matrix = self._merged.matrix
        return cosines_of(matrix, self._ids[one], matrix, self._ids[two])

    def _blocks(self, rows: Ids) -> Iterator[Ids]:
        return (rows[start : start + self._block_rows] for start in range(0, len(rows), self._block_rows))
