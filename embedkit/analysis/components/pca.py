"""Exact principal components of any number of vectors: moments in one pass, in float64, then one eigenproblem.

The covariance is accumulated about the mean of the first vectors, so that a mean far from zero costs no precision.
Moments of disjoint rows can be added: those of a run are the sum of those of its sources. No row is sampled, and no row
is kept in memory.

Signs: a direction has none. As in scikit-learn, the entry of a component with the largest absolute value is positive.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.optional_import import optional_import
from embedkit.errors import EmbedkitError

Floats = npt.NDArray[np.float64]
Block = npt.NDArray[np.float32]
Visit = Callable[[npt.NDArray[np.int64], Block], None]

PIECE_ROWS = 8_192
"""Rows converted to float64 at a time: 64 MB of 1,024 numbers each."""
NO_VARIANCE = 1e-12
"""A direction with a smaller share of the mean square is rounding, not variance: float64 has 16 digits, float32 7."""


@dataclass(frozen=True)
class Moments:
    """Count, mean, float64 (D,), and scatter, float64 (D, D): the sum of outer products about the mean."""

    count: int
    mean: Floats
    scatter: Floats

    @classmethod
    def empty(cls, dim: int) -> Self:
        """Moments of no rows."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of both sets of rows together (Chan, Golub and LeVeque 1979)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter += np.outer(delta, delta * (self.count * other.count / count))
        return Moments(count, self.mean + delta * (other.count / count), scatter)


@dataclass(frozen=True)
class PCA:
    """Principal components of `count` vectors, the largest variance first.

    mean: float64 (D,). components: float64 (K, D), rows of norm 1. explained_variance, explained_variance_ratio:
    float64 (K,), divided by n - 1 as in scikit-learn. total_variance: of all D directions. spectrum: the variances of
    all directions, descending, float64 (D,), or only of the components if the whole spectrum was not requested. K may
    be smaller than requested: n vectors vary in n - 1 directions at most, and directions without variance are left out.
    """

    count: int
    mean: Floats
    components: Floats
    explained_variance: Floats
    explained_variance_ratio: Floats
    total_variance: float
    spectrum: Floats

    def transform(self, block: npt.NDArray[np.floating]) -> Floats:
        """Scores of vectors (n, D) on the components, float64 (n, K)."""
        scores = np.empty((len(block), len(self.components)))
        offset = self.components @ self.mean
        for start in range(0, len(block), PIECE_ROWS):
            piece = block[start : start + PIECE_ROWS].astype(np.float64)
            scores[start : start + len(piece)] = piece @ self.components.T - offset
        return scores


def moments(blocks: Iterable[npt.NDArray[np.floating]], dim: int) -> Moments:
    """Compute the moments of vectors that arrive in blocks (n, dim), in one pass."""
    shift, count = np.zeros(dim), 0
    total, scatter = np.zeros(dim), np.zeros((dim, dim))
    buffer = np.empty((0, dim))
    for block in blocks:
        if not len(block):
            continue
        if not count:
            shift = block[:PIECE_ROWS].mean(axis=0, dtype=np.float64)
        if len(buffer) < min(len(block), PIECE_ROWS):
            buffer = np.empty((min(len(block), PIECE_ROWS), dim))
        for start in range(0, len(block), PIECE_ROWS):
            rows = block[start : start + PIECE_ROWS]
            piece = buffer[: len(rows)]
            np.subtract(rows, shift, out=piece)
            total += piece.sum(axis=0)
            scatter += piece.T @ piece  # NumPy uses syrk for this, half the work of a general product
        count += len(block)
    if count:
        scatter -= np.outer(total, total / count)
        shift = shift + total / count
    return Moments(count, shift, scatter)


def pca_from_moments(found: Moments, components: int | None = None, whole_spectrum: bool = True) -> PCA:
    """Compute principal components from moments: `components` of them, or all.

    whole_spectrum: also compute the variances of all directions. Without them it takes a third of the time.

    Raises:
        EmbedkitError: the vectors contain numbers that are not finite.
    """
    if not np.isfinite(found.scatter).all():
        raise not_finite_error("the vectors")
    dim = len(found.mean)
    max_components = min(dim, max(found.count - 1, 0))
    wanted = max_components if components is None else min(components, max_components)
    covariance = found.scatter / max(found.count - 1, 1)
    total = float(np.trace(covariance))
    with one_blas_thread():
        variances, vectors = np.linalg.eigh(covariance) if whole_spectrum else _largest(covariance, wanted)
    spectrum = np.maximum(variances[::-1], 0.0)
    floor = NO_VARIANCE * (total + float(found.mean @ found.mean))
    kept = min(wanted, int((spectrum > floor).sum()))
    rows = np.ascontiguousarray(vectors[:, ::-1][:, :kept].T)
    variance = spectrum[:kept].copy()
    return PCA(
        count=found.count,
        mean=found.mean,
        components=rows * _signs(rows)[:, None],
        explained_variance=variance,
        explained_variance_ratio=variance / total if total > floor else np.zeros(kept),
        total_variance=max(total, 0.0),
        spectrum=spectrum,
    )


def pca(merged: Merged, components: int | None = None, visit: Visit | None = None) -> PCA:
    """Principal components of the chosen rows with a text, in one pass. `visit` is called with each block, too."""

    def blocks() -> Iterable[Block]:
        for at, block in merged.blocks():
            yield block
            if visit is not None:
                visit(at, block)

    return pca_from_moments(moments(blocks(), merged.dim), components)


def project(merged: Merged, found: PCA, visit: Visit | None = None) -> npt.NDArray[np.float32]:
    """Scores of all chosen rows, float32 (n, K), by position; NaN for rows without a text.

    visit: called with each block (positions, vectors) in the same pass.

    Raises:
        EmbedkitError: the matrix contains numbers that are not finite.
    """
    scores = np.full((merged.rows.height, len(found.components)), np.nan, np.float32)
    for at, block in merged.blocks():
        scores[at] = found.transform(block)
        if len(found.components) and not np.isfinite(scores[at]).all():
            at = at[~np.isfinite(scores[at]).all(axis=1)]
            raise not_finite_error(merged.matrix.path_of(int(merged.ids[at[0]])))
        if visit is not None:
            visit(at, block)
    return scores


def not_finite_error(where: object) -> EmbedkitError:
    """The error for a matrix with NaN or infinity. Embed refuses such vectors, so the file must be damaged."""
    return EmbedkitError(
        f"{where}: contains numbers that are not finite; run `embedkit verify`, which says how to fix it"
    )


def one_blas_thread() -> AbstractContextManager[object]:
    """Limit BLAS to one thread inside the block. On several, the small steps of an eigenproblem wait for each other.

    For 1,024 dimensions it takes 0.5 s with one thread, and up to 5 s with two threads on a shared machine.
    """
    optional_import("scipy.linalg")  # brings its own BLAS, which must be loaded to be limited
    limits: AbstractContextManager[object] = optional_import("threadpoolctl").threadpool_limits(1)
    return limits


def _largest(covariance: Floats, count: int) -> tuple[Floats, Floats]:
    """The `count` largest eigenvalues, ascending, and their eigenvectors (D, count)."""
    dim = len(covariance)
    if not count:
        return np.zeros(0), np.zeros((dim, 0))
    eigh = optional_import("scipy.linalg").eigh
    values, vectors = eigh(covariance, subset_by_index=(dim - count, dim - 1), overwrite_a=True, check_finite=False)
    return values, vectors


def _signs(rows: Floats) -> Floats:
    """1 or -1 per row, which makes its entry with the largest absolute value positive."""
    if not rows.size:
        return np.ones(len(rows))
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
    return np.where(largest < 0, -1.0, 1.0)
