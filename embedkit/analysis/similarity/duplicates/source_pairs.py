"""Counts of pairs of rows by their two sources, in little memory whether few or all pairs of sources have some."""

from typing import Any

import numpy as np
import numpy.typing as npt

WAITING = 1 << 20
"""Pairs of rows that wait until they are counted together."""
SPARSE = 4 << 20
"""Pairs of sources that are counted as sorted keys. If more occur, as with a template of all sources, each pair of
sources has a count: 2 bytes times the square of the sources, 288 MB for 12,000; twice that if a count is large."""
BLOCK = 4 << 20
LARGE = 1 << 30
"""A count from which on counts take 8 bytes each. Far fewer pairs are added at once."""

Ids = npt.NDArray[np.int64]
Counts = npt.NDArray[np.signedinteger[Any]]
"""int32, or int64 once a count is large."""


class SourcePairs:
    """Counts pairs of codes of sources, in any order.

    The key of codes a <= b is b (b + 1) / 2 + a: the triangle below the diagonal, row by row.
    """

    def __init__(self, sources: int) -> None:
        """sources: how many there are; codes are below."""
        self._all_keys = sources * (sources + 1) // 2
        self._keys: Ids = np.empty(0, np.int64)
        self._counts: Counts = np.empty(0, np.int64)  # of each key in _keys, or of all keys
        self._is_dense = False
        self._waiting: list[Ids] = []
        self._waits = 0
        self.total = 0

    def add(self, one: Ids, two: Ids) -> None:
        """Count pairs of codes, int64 (n,) each."""
        low, high = np.minimum(one, two), np.maximum(one, two)
        self._waiting.append(high * (high + 1) // 2 + low)
        self._waits += len(one)
        self.total += len(one)
        if self._waits >= WAITING:
            self._settle()

    def add_keys(self, keys: Ids, counts: Ids) -> None:
        """Add how many pairs each key has, int64 (n,) each; keys ascending, each once."""
        self._settle()
        self._merge(keys, counts)
        self.total += int(counts.sum())

    def most(self, count: int) -> tuple[Ids, Ids, Ids]:
        """The pairs of codes a <= b with most pairs of rows, at most `count`, and these numbers; by a, then by b."""
        self._settle()
        keys, counts = self._keys, self._counts
        if self._is_dense:
            keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
            for start in range(0, self._all_keys, BLOCK):
                here = start + np.flatnonzero(self._counts[start : start + BLOCK])
                keys, counts = np.concatenate([keys, here]), np.concatenate([counts, self._counts[here]])
                keys, counts = _largest(keys, counts, count)
        keys, counts = _largest(keys, counts, count)
        high = ((np.sqrt(8 * keys + 1) - 1) / 2).astype(np.int64)
        high += (high + 1) * (high + 2) // 2 <= keys  # where the root was rounded
        high -= high * (high + 1) // 2 > keys
        low = keys - high * (high + 1) // 2
        order = np.lexsort((high, low))
        return low[order], high[order], counts[order].astype(np.int64)

    def _settle(self) -> None:
        """Count the keys that wait."""
        keys, times = np.unique(np.concatenate([np.empty(0, np.int64), *self._waiting]), return_counts=True)
        self._waiting, self._waits = [], 0
        self._merge(keys, times)

    def _merge(self, keys: Ids, times: Ids) -> None:
        """Add to the counts of keys, ascending, each once."""
        if self._is_dense:
            self._count_dense(keys, times)
            return
        merged, at = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        counts = np.zeros(len(merged), np.int64)
        np.add.at(counts, at, np.concatenate([self._counts, times]))
        self._keys, self._counts = merged, counts
        if len(merged) > SPARSE:
            self._counts = np.zeros(self._all_keys, np.int32 if counts.max() < LARGE else np.int64)
            self._counts[merged] = counts
            self._keys, self._is_dense = merged[:0], True

    def _count_dense(self, keys: Ids, times: Ids) -> None:
        """Add to the counts of all keys. keys: each once."""
        counts = self._counts[keys] + times
        if counts.max(initial=0) >= LARGE:
            self._counts = self._counts.astype(np.int64, copy=False)
        self._counts[keys] = counts


def _largest(keys: Ids, counts: Counts, count: int) -> tuple[Ids, Counts]:
    """The keys with the largest counts, of equal counts the lower keys; ascending."""
    if len(keys) <= count:
        return keys, counts
    chosen = np.sort(np.lexsort((keys, -counts))[:count])
    return keys[chosen], counts[chosen]
