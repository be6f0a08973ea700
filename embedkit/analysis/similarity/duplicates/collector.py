"""What takes the pairs of a search as they are found. They are billions in a data set of templates, and never held."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedkit.analysis.similarity.duplicates.needless import Needless

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Collector(Protocol):
    """Takes pairs of rows as they are found."""

    @property
    def min_cosine(self) -> float:
        """The smallest float32 cosine of a pair that it needs."""
        ...

    def add(self, a: Ids, b: Ids, scores: Floats) -> None:
        """Take pairs of ids with a float32 cosine of at least `min_cosine`, each pair once, its ids in any order."""
        ...

    def needless(self, a: Ids, b: Ids, is_once: bool) -> Needless | None:
        """Which pairs of ids of a and ids of b need not be given; None if all are needed.

        is_once: each pair of an id of a and an id of b is found once, and the ids of a are lower than those of b.
        """
        ...


class Both:
    """Gives each pair to two collectors."""

    def __init__(self, one: Collector, two: Collector) -> None:
        self._collectors = one, two

    @property
    def min_cosine(self) -> float:
        """The smaller one of both."""
        return min(one.min_cosine for one in self._collectors)

    def add(self, a: Ids, b: Ids, scores: Floats) -> None:
        """As in Collector."""
        for one in self._collectors:
            if one.min_cosine > self.min_cosine:
                near = scores >= one.min_cosine
                one.add(a[near], b[near], scores[near])
            else:
                one.add(a, b, scores)

    def needless(self, a: Ids, b: Ids, is_once: bool) -> Needless | None:
        """As in Collector: what is needless to both, which have different rules."""
        rules = [one.needless(a, b, is_once) for one in self._collectors]
        if None in rules:
            return None
        joined = [rule.joined for rule in rules if rule and rule.joined]
        counted = [rule.counted for rule in rules if rule and rule.counted]
        return Needless(joined[0] if joined else None, counted[0] if counted else None)


class Positions:
    """Finds the positions of ids among all ids, which are ascending."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._first = int(ids[0]) if len(ids) else 0
        self._is_range = len(ids) > 0 and int(ids[-1]) - self._first + 1 == len(ids)

    def of(self, ids: Ids) -> Ids:
        """Positions of some of the ids, int64 (n,)."""
        if self._is_range:  # all rows of the run
            return ids - self._first
        found: Ids = np.searchsorted(self._ids, ids)
        return found
