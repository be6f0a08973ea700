"""A sample that flattens density: rows in crowded places are taken seldom, rows in empty places nearly always.

This is the idea of the DENSITY sampler of Sachdeva et al., "How to Train Data-Efficient LLMs", arXiv:2402.09668, 2024:
inverse propensity sampling, with a kernel density estimate as the propensity. They estimate kernel sums over all rows,
with a sketch of locality-sensitive hashes. Here the kernel is summed exactly, over a random sample of rows.

The kernel is Epanechnikov's, which is 0 beyond the bandwidth. In many dimensions nearly all pairs of rows are far apart
and equally so. The tails of a Gaussian, added up over thousands of them, would hide the few rows that are near.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.subset.row_tiles import RowTiles

SAMPLE_ROWS = 4_096
"""Rows over which the kernel is averaged."""
NEIGHBOR = 10
"""The bandwidth is the distance to this nearest row of the sample, in the median."""
COPY = 1e-6
"""Rows with a smaller 1 - cosine have the same vector."""

Ids = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Densities:
    """The density of every row, float64 (n,), from 1 / (sampled + 1) to 1, and how it was computed."""

    values: Doubles
    bandwidth: float
    sampled: int


def row_densities(
    rows: RowTiles,
    hashes: npt.NDArray[np.uint64],
    advance: Callable[[int], object] = lambda rows: None,
    sample_rows: int = SAMPLE_ROWS,
) -> Densities:
    """Estimate the density at every row: the mean of max(0, 1 - (1 - cosine) / bandwidth) over a sample and itself.

    A row counts itself, so no density is 0: rows to which no sampled row is near all have 1 / (sampled + 1).

    Args:
        rows: to choose from.
        hashes: of each row, uint64 (n,); the rows with the smallest are sampled.
        advance: gets the number of rows that were compared since the last call.
        sample_rows: the size of the sample.
    """
    sample = np.sort(np.lexsort((np.arange(len(rows)), hashes))[:sample_rows])
    if not len(sample):
        return Densities(np.empty(0), 1.0, 0)
    centers = rows.put(sample)
    bandwidth = choose_bandwidth(rows, centers)
    sums = np.empty(len(rows))
    for piece, tile in rows.tiles():
        sums[piece] = rows.product.kernel_sums(tile, rows.norms[piece], centers, bandwidth)
        advance(piece.stop - piece.start)
    sums += 1
    sums[sample] -= 1  # the sample has them already
    return Densities(sums / (len(sample) + 1), bandwidth, len(sample))


def choose_bandwidth(rows: RowTiles, centers: Any) -> float:
    """Median over sampled rows of 1 - cosine to the NEIGHBOR-th nearest other one, or to the last if there are fewer.

    Rows with that many copies are left out, since copies say nothing about distances. 1 if no rows are left.

    Args:
        rows: their product multiplies.
        centers: the sampled rows, as the product's `put` leaves them.
    """
    k = min(NEIGHBOR, len(centers) - 1)
    if k < 1:
        return 1.0
    _, cosines = rows.product.top(centers, centers, k + 1)  # the row itself is one of them
    distances = 1 - cosines[:, k].astype(np.float64)
    apart = distances[distances > COPY]
    return float(np.median(apart)) if len(apart) else 1.0


def sample_by_density(densities: Doubles, hashes: npt.NDArray[np.uint64], k: int) -> Ids:
    """Sample k rows without replacement, with probabilities inverse to their densities, in the order of drawing.

    Each row gets an exponential random number with rate 1 / density; the rows with the smallest are taken (Efraimidis
    and Spirakis, "Weighted random sampling with a reservoir", Information Processing Letters 2006). The first j rows
    are the sample of j rows.

    Args:
        densities: float64 (n,), above 0.
        hashes: random bits of each row, uint64 (n,).
        k: how many to take; all if there are no more.

    Returns:
        Positions, int64 (min(k, n),).
    """
    uniform = (hashes >> np.uint64(11)) * 2.0**-53  # in [0, 1), with all bits of a float64
    keys = -np.log1p(-uniform) * densities
    drawn: Ids = np.lexsort((np.arange(len(keys)), keys))[:k]
    return drawn
