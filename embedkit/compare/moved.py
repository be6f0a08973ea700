"""How far each row moved between two sets of vectors, whose dimensions may differ.

A row is described by its cosines to landmarks, which are the same rows in both sets. It moved by 1 - r, with r the
Pearson correlation of its two lists of cosines. This is the idea of representational similarity analysis (Kriegeskorte
et al. 2008), for one row at a time. 0: it lies to the landmarks as before; 1: there is no relation.
"""

import numpy as np
import numpy.typing as npt

from embedkit.analysis.similarity.neighbors import norms, units
from embedkit.compare.overlap import Floats, Ids
from embedkit.data import row_hash

LANDMARKS = 2_000
LEAST_SPREAD = 1e-6
"""Smallest standard deviation of cosines that is more than rounding."""

Doubles = npt.NDArray[np.float64]


def choose_landmarks(rows: int, seed: int, count: int = LANDMARKS) -> Ids:
    """Positions of random rows, ascending, int64 (min(rows, count),)."""
    return np.sort(np.argsort(row_hash(seed + 1, np.arange(rows)), kind="stable")[:count])


class MovedRows:
    """Measures rows against landmarks.

    Args:
        landmarks: their positions, ascending, int64 (m,).
        a: their vectors in the first set, float32 (m, D_a).
        b: in the second set, float32 (m, D_b).
    """

    def __init__(self, landmarks: Ids, a: Floats, b: Floats) -> None:
        self._landmarks = landmarks
        self._a, self._b = units(a, norms(a)).T.copy(), units(b, norms(b)).T.copy()

    def measure(self, at: Ids, a: Floats, b: Floats) -> Floats:
        """How far rows moved, float32 (n,), from 0 to 2; NaN where all cosines of a row are equal.

        A landmark is not compared with itself.

        Args:
            at: positions of the rows, int64 (n,).
            a: their vectors in the first set, float32 (n, D_a).
            b: in the second set, float32 (n, D_b).
        """
        place = np.searchsorted(self._landmarks, at)
        is_landmark = self._landmarks[np.minimum(place, len(self._landmarks) - 1)] == at
        own = np.flatnonzero(is_landmark), place[is_landmark]
        one, other = (
            _centred(units(vectors, norms(vectors)) @ landmarks, own)
            for vectors, landmarks in ((a, self._a), (b, self._b))
        )
        squares = [np.einsum("ij,ij->i", side, side, dtype=np.float64) for side in (one, other)]
        least = len(self._landmarks) * LEAST_SPREAD**2
        known = (squares[0] > least) & (squares[1] > least)
        moved = np.full(len(at), np.nan)
        dots = np.einsum("ij,ij->i", one, other, dtype=np.float64)[known]
        moved[known] = 1 - dots / np.sqrt(squares[0] * squares[1])[known]
        return moved.clip(0, 2).astype(np.float32)


def _centred(cosines: Floats, own: tuple[Ids, Ids]) -> Floats:
    """Subtract each row's mean. own: row and column of cosines that do not count; they become 0."""
    cosines[own] = 0
    counts = np.full(len(cosines), cosines.shape[1])
    counts[own[0]] -= 1
    means = cosines.sum(axis=1, dtype=np.float64) / np.maximum(counts, 1)
    cosines -= means[:, None].astype(np.float32)
    cosines[own] = 0
    return cosines
