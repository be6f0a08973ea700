"""Silhouette of every row by cosine distance, with the sources as clusters: exact, without comparing pairs.

Source: Rousseeuw, Silhouettes: a graphical aid to the interpretation and validation of cluster analysis, Journal of
Computational and Applied Mathematics 20 (1987). The mean cosine distance of a unit vector u to the unit vectors of a
cluster is 1 - u.m, where m is their mean. So the means of the clusters suffice.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.neighbors import norms

SAME_DISTANCE = 1e-6
"""Distances below this are rounding: of a row that is as near to two clusters, the silhouette is 0."""

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def mean_directions(
    merged: Merged, codes: Codes, clusters: int, block_rows: int, progress: Callable[[int], None]
) -> npt.NDArray[np.float64]:
    """Means of the unit vectors of each cluster, float64 (clusters, D).

    codes: cluster of each row of `merged.rows`, int64 (n,), -1 for none. Each cluster has a row with a text.
    """
    sparse = optional_import("scipy.sparse")
    sums, counts = np.zeros((clusters, merged.dim)), np.zeros(clusters, np.int64)
    for at, vectors in merged.blocks(block_rows):
        chosen = np.flatnonzero(codes[at] >= 0)
        of_rows = codes[at[chosen]]
        # One row per cluster, with 1 / norm where a row belongs to it. Its product with the vectors is their sums.
        weights = sparse.csr_array(
            (1 / norms(vectors)[chosen].astype(np.float64), (of_rows, chosen)), (clusters, len(vectors))
        )
        sums += weights @ vectors
        counts += np.bincount(of_rows, minlength=clusters)
        progress(len(vectors))
    return sums / counts[:, None]


def silhouettes(rows: Floats, codes: Codes, means: npt.NDArray[np.float64], counts: Codes) -> Floats:
    """Silhouette of some rows, from -1 to 1, float32 (m,); 0 for the only row of a cluster.

    rows: unit vectors, float32 (m, D). codes: their clusters, int64 (m,). means: as `mean_directions` returns them, of
    two clusters or more. counts: rows of each cluster.
    """
    distances = 1 - rows @ means.T.astype(np.float32)
    at = np.arange(len(rows))
    sizes = counts[codes]
    # A row is at distance 0 from itself, so the mean over the other rows of its cluster is a little larger.
    own = distances[at, codes] * (sizes / np.maximum(sizes - 1, 1))
    distances[at, codes] = np.inf
    other = distances.min(axis=1)
    largest = np.maximum(own, other)
    is_defined = (sizes > 1) & (largest > SAME_DISTANCE)
    return np.where(is_defined, (other - own) / np.where(is_defined, largest, 1), 0).astype(np.float32)
