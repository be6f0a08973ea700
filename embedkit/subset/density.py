"""A sample that flattens density: rows in crowded places are taken seldom, rows in empty places nearly always.

This is the idea of the DENSITY sampler of Sachdeva et al., "How to Train Data-Efficient LLMs", arXiv:2402.09668, 2024:
inverse propensity sampling, with a kernel density estimate as the propensity. They estimate kernel sums over all rows,
with a sketch of locality-sensitive hashes. Here the kernel is summed exactly, over a random sample of rows.

The kernel is Epanechnikov's, which is 0 beyond the bandwidth. In many dimensions nearly all pairs of rows are far apart
and equally so. The tails of a Gaussian, added up over thousands of them, would hide the few rows that are near.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.subset.row_tiles import RowTiles

SAMPLE_ROWS = 4_096
"""Rows over which the kernel is averaged."""
LEAST_NEIGHBOR = 10
"""The smallest bandwidth that is tried is the median distance to the nearest row of this rank."""
COPY = 1e-6
"""Rows with a smaller 1 - cosine have the same vector."""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
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
    units = rows.unit_vectors(sample)
    bandwidth = choose_bandwidth(units @ units.T)
    sums = np.empty(len(rows))
    for piece, tile in rows.tiles():
        sums[piece] = rows.product.kernel_sums(tile, rows.norms[piece], centers, bandwidth)
        advance(piece.stop - piece.start)
    sums += 1
    sums[sample] -= 1  # the sample has them already
    return Densities(sums / (len(sample) + 1), bandwidth, len(sample))


def choose_bandwidth(cosines: Floats) -> float:
    """Choose the bandwidth at which rows differ most in density: the variance of the log density is largest.

    With a small one, a crowd of 90 % of the rows hardly looks denser than one of 9 %; with a large one, all are near.
    The median distances to the 10th, 20th, 40th, ... nearest other row are tried. Rows with so many copies are left out
    of a median, since copies say nothing about distances.

    Args:
        cosines: of all pairs of sampled rows, float32 (m, m).

    Returns:
        As 1 - cosine; 1 if all rows are copies of one.
    """
    distances = np.sort(1 - cosines, axis=1)[:, 1:]  # without the row itself, or a copy in its place
    best, largest = 1.0, -1.0
    k = min(LEAST_NEIGHBOR, distances.shape[1])
    while 1 <= k <= distances.shape[1]:
        apart = distances[distances[:, k - 1] > COPY, k - 1]
        bandwidth = float(np.median(apart)) if len(apart) else 1.0
        sums = 1 + np.maximum(1 - distances / np.float32(bandwidth), 0).sum(axis=1, dtype=np.float64)
        variance = float(np.log(sums).var())
        if variance > largest:
            best, largest = bandwidth, variance
        k *= 2
    return best


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
