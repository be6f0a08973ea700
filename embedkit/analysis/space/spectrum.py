"""How many directions the vectors use: numbers that follow from the variances of all principal components.

Sources: Roy and Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007. Rudman, Gillman,
Rayne and Eickhoff, IsoScore: measuring the uniformity of embedding space utilization, Findings of ACL 2022.
"""

from dataclasses import dataclass

import numpy as np

from embedkit.analysis.components.pca import PCA, Floats
from embedkit.errors import UsageError

SHARES = (0.5, 0.9, 0.95, 0.99)
"""Shares of the variance for which the components are counted."""


@dataclass(frozen=True)
class Spectrum:
    """The variances of D directions as a few numbers. All are None, or empty, if nothing varies.

    participation_ratio: (sum v)^2 / sum v^2 of the variances v: from 1, if there is one direction, to D, if all have
    the same variance. effective_rank: exp of the entropy of v / sum v, in the same range; it is the effective rank of
    Roy and Vetterli of the covariance matrix. isoscore: from 0 for one direction to 1 for all. components: (share,
    smallest number of components that have this share of the variance).
    """

    dim: int
    participation_ratio: float | None
    effective_rank: float | None
    isoscore: float | None
    components: tuple[tuple[float, int], ...]


def describe_spectrum(found: PCA) -> Spectrum:
    """Describe the spectrum of principal components.

    Raises:
        UsageError: the PCA was computed without the variances of all directions.
    """
    dim, variances = len(found.mean), found.spectrum
    if len(variances) != dim:
        raise UsageError(f"the PCA has {len(variances)} of {dim} variances; compute it with whole_spectrum=True")
    if not len(found.explained_variance_ratio) or not found.explained_variance_ratio.any():
        return Spectrum(dim, None, None, None, ())
    cumulative = variances.cumsum() / variances.sum()
    counts = np.minimum(np.searchsorted(cumulative, np.array(SHARES) - 1e-12) + 1, dim)
    ratio = participation_ratio(variances)
    return Spectrum(
        dim=dim,
        participation_ratio=ratio,
        effective_rank=effective_rank(variances),
        isoscore=isoscore(ratio, dim),
        components=tuple(zip(SHARES, counts.tolist(), strict=True)),
    )


def participation_ratio(variances: Floats) -> float:
    """(sum v)^2 / sum v^2. variances: float64 (D,), not all zero."""
    shares = variances / variances.sum()
    return float(1 / (shares @ shares))


def effective_rank(variances: Floats) -> float:
    """Exponential of the entropy of the variances' shares. variances: float64 (D,), not all zero."""
    shares = variances[variances > 0] / variances.sum()
    return float(np.exp(-(shares @ np.log(shares))))


def isoscore(ratio: float, dim: int) -> float | None:
    """IsoScore of vectors of `dim` numbers; None for one number. ratio: their participation ratio.

    The paper's steps normalize the variances to the length of (1, ..., 1), take their distance to it as the isotropy
    defect, and rescale that to a share of dimensions. They simplify to (ratio - 1) / (dim - 1).
    """
    return None if dim < 2 else (ratio - 1) / (dim - 1)
