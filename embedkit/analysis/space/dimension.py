"""Intrinsic dimension from the two nearest neighbours of every row: TwoNN.

Source: Facco, d'Errico, Rodriguez and Laio, Estimating the intrinsic dimension of datasets by a minimal neighborhood
information, Scientific Reports 7, 12140 (2017).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.similarity.all_neighbors import RowNeighbors

DISCARDED = 0.1
"""Share of the rows with the largest ratios that the fit leaves out, as in the paper: they follow the model least."""
DUPLICATE_COSINE = 1 - 2.5e-7
"""Rows at or above this cosine are duplicates: it is four steps of float32 from 1, too few for a distance."""


@dataclass(frozen=True)
class IntrinsicDimension:
    """TwoNN's estimate.

    dimension: None with fewer than two rows to fit. rows: rows that were used. duplicates: rows left out because
    another row has the same vector. without_ratio: rows left out because they do not have two neighbours at different
    distances.
    """

    dimension: float | None
    rows: int
    duplicates: int
    without_ratio: int


def intrinsic_dimension(neighbors: RowNeighbors) -> IntrinsicDimension:
    """Estimate the intrinsic dimension by the paper's linear fit.

    The ratio mu = r2 / r1 of a row's distances to its two nearest neighbours has the distribution F(mu) = 1 - mu^-d,
    where d is the dimension. So -log(1 - F(mu)) = d log(mu), and d is the slope of the line through the origin. F is
    the empirical distribution. Distances are chordal, sqrt(2 - 2 cos). Two neighbours at the same distance are taken as
    copies of one vector, so r2 is the distance of the first neighbour that is further than the nearest.
    """
    cosines = neighbors.cosines
    n = len(cosines)
    if not n:
        return IntrinsicDimension(None, 0, 0, 0)
    is_duplicate = cosines[:, 0] >= DUPLICATE_COSINE
    further = cosines < cosines[:, :1]
    has_ratio = further.any(axis=1) & ~is_duplicate
    second = cosines[np.arange(n), further.argmax(axis=1)]
    gap1, gap2 = (1 - one[has_ratio].astype(np.float64) for one in (cosines[:, 0], second))
    log_mu = np.sort(np.log(gap2 / gap1) / 2)
    rows, duplicates = len(log_mu), int(is_duplicate.sum())
    return IntrinsicDimension(_slope(log_mu), rows, duplicates, n - rows - duplicates)


def _slope(log_mu: npt.NDArray[np.float64]) -> float | None:
    """Least-squares slope through the origin of -log(1 - F) over log mu. log_mu: ascending, all positive."""
    kept = int(len(log_mu) * (1 - DISCARDED))
    if not kept:
        return None
    x, y = log_mu[:kept], -np.log1p(-np.arange(1, kept + 1) / len(log_mu))
    return float(x @ y / (x @ x))
