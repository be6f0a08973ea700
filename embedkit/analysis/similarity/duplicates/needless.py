"""Pairs that a search need not give to its collectors, so that it leaves them out where it multiplies.

In a data set of templates, billions of pairs are near. Most of them change no group and are not listed: on a GPU it
takes longer to copy them to the host than to find them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_KEYS = 4 << 20
"""Keys that are copied from the GPU together."""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Joined:
    """Rows of two tiles that are joined at levels, each of which needs a larger product than the one before.

    A pair is needless if its rows are joined at the highest level that it may reach.

    least: smallest product with which a pair may reach each level, ascending, float32 (L,). a, b: labels of the rows at
    each level, int32 (L, len(a)) and (L, len(b)). Rows with the same label are joined there, and at all lower levels.
    """

    least: Floats
    a: npt.NDArray[np.int32]
    b: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Counted:
    """Pairs of two tiles that only need to be counted, by the codes of their rows.

    A pair is needless, once it is counted, if its product is above `above`, and either below `below` or of a row of a
    that is not `listed`.

    listed: bool (len(a),). codes_a, codes_b: of the rows, int64 (len(a),) and (len(b),). counts: counts them.
    """

    above: float
    below: float
    listed: Mask
    codes_a: Ids
    codes_b: Ids
    counts: "PairCounts"


@dataclass(frozen=True)
class Needless:
    """Pairs of two tiles that need not be given: those that are needless by all of its rules.

    joined, counted: None is no rule. At least one is there.
    """

    joined: Joined | None = None
    counted: Counted | None = None


class PairCounts:
    """Counts pairs by the codes of their rows on the GPU, in one number per pair of codes: 8 bytes each."""

    def __init__(self, codes: int) -> None:
        """codes: how many there are; each is below."""
        self._codes = codes
        self._counts: Any = None  # a tensor where the pairs are

    def add(self, one: Any, two: Any) -> None:
        """Count pairs of codes, int64 tensors (n,), in any order."""
        high, low = one.maximum(two), one.minimum(two)
        keys = high * (high + 1) // 2 + low
        if self._counts is None:
            self._counts = keys.new_zeros(self._codes * (self._codes + 1) // 2)
        self._counts.scatter_add_(0, keys, keys.new_ones(len(keys)))

    def blocks(self) -> Iterator[tuple[Ids, Ids]]:
        """Keys as those of SourcePairs, ascending, and how many pairs each has, int64 (n,) each."""
        for start in range(0, 0 if self._counts is None else len(self._counts), BLOCK_KEYS):
            counts = self._counts[start : start + BLOCK_KEYS].cpu().numpy()
            keys = np.flatnonzero(counts)
            yield start + keys, counts[keys]
