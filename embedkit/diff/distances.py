"""Distances of pairs of vectors."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
FURTHEST = 2.0
"""1 - cosine of opposite vectors; also of a vector of zeros, or with NaN or infinity, which has no direction."""


class Pairs(NamedTuple):
    """Of n pairs of vectors: 1 - cosine, and the relative difference of their lengths, float64 (n,) each."""

    distances: Doubles
    lengths: Doubles


def compare(a: Floats, b: Floats) -> Pairs:
    """Compare each row of a with that of b, float32 (n, D) each. Computed in float64."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        of_a, of_b = np.linalg.norm(a64, axis=1), np.linalg.norm(b64, axis=1)
        # Half the squared distance of unit vectors: 1 - cosine would lose all digits of a small one.
        difference = a64 / of_a[:, None] - b64 / of_b[:, None]
        distances = np.square(difference).sum(axis=1) / 2
        lengths = np.abs(of_b / of_a - 1)
    return Pairs(
        np.where(np.isfinite(distances), distances, FURTHEST).clip(max=FURTHEST),
        np.where(np.isfinite(lengths), lengths, 1.0),
    )
