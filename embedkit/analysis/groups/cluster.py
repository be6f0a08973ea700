"""Groups of sampled rows: HDBSCAN on UMAP coordinates.

HDBSCAN alone finds little in spaces of many dimensions, where all distances are alike. UMAP keeps the neighbours in a
few. docs/benchmarks.md compares both with EVoC and fast_hdbscan.

Sources: Campello, Moulavi and Sander, Density-based clustering based on hierarchical density estimates, PAKDD 2013;
McInnes, Healy and Melville, UMAP, arXiv 1802.03426; scikit-learn; umap-learn.
"""

import numpy as np
import numpy.typing as npt

from embedkit.analysis.groups.space import Space
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.umap import fit_umap

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

UMAP_DIMS = 5
UMAP_NEIGHBORS = 15
CORE_ROWS = 5
"""HDBSCAN's min_samples: the distance to the fifth nearest row measures the density."""


def cluster_sample(sample: Floats, space: Space, min_rows: int, seed: int) -> Labels:
    """Number the groups of sampled rows from 0 on, int32 (n,); -1 for rows in none.

    Args:
        sample: vectors, float32 (n, D).
        space: their reduced space. Rows that all have one direction are one group.
        min_rows: rows of the smallest group. Fewer than twice as many rows have no groups.
        seed: of UMAP.
    """
    rows = len(sample)
    if rows < min_rows:
        return np.full(rows, -1, np.int32)
    if not space.dims:
        return np.zeros(rows, np.int32)
    if rows < 2 * min_rows:
        return np.full(rows, -1, np.int32)
    coordinates = fit_umap(sample, seed, min(UMAP_NEIGHBORS, rows - 1), 0.0, min(UMAP_DIMS, max(rows - 2, 2)))
    hdbscan = optional_import("sklearn.cluster").HDBSCAN(
        min_cluster_size=max(min_rows, 2), min_samples=min(CORE_ROWS, rows), copy=True
    )
    return np.asarray(hdbscan.fit_predict(coordinates), np.int32)
