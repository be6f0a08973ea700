"""All rows on the map of a sample: each starts among its nearest rows, then UMAP's own descent moves all of them.

A row put at the mean of its nearest sampled rows is drawn inwards: groups of such rows are half as wide as groups of
fitted ones. Here fitted and placed rows are points of one graph and follow the same forces, so they lie alike.

Source: McInnes, Healy, Melville, UMAP, arXiv 1802.03426, sections 3.1 and 3.2; umap-learn.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.optional_import import optional_import

EPOCHS = 60
"""Passes over the graph. A map of 16,663 rows kept 0.439 of the ten nearest with 30, 0.443 with 60, 0.452 with 100."""
LEARNING_RATE = 0.25
"""UMAP begins at 1, where points still cross the map. These begin near their place: 30 passes kept 0.412 with a rate of
1, 0.440 with 0.25."""
JITTER = 1e-3
"""Standard deviation that parts points on one place: umap-learn seeds a point's negative samples with its x."""
NEGATIVE_SAMPLES = 5
"""Points that each point is pushed from for one that it is drawn to; UMAP's default."""

Floats = npt.NDArray[np.float32]
Neighbors = npt.NDArray[np.int32]


def start_among_neighbors(fitted_xy: Floats, is_fitted: npt.NDArray[np.bool_], neighbors: Neighbors) -> Floats:
    """Points of all rows, float32 (n, 2): rows without one get the mean of their neighbours', in rounds.

    Args:
        fitted_xy: points of the fitted rows, float32 (m, 2). They stay.
        is_fitted: bool (n,).
        neighbors: int32 (n, k), -1 for none. Two rows are neighbours if one of them is among the other's.

    Returns:
        NaN for rows that no path of neighbours joins to a fitted row.
    """
    graph = _joined(neighbors)
    xy = np.zeros((len(neighbors), 2), np.float32)
    xy[is_fitted] = fitted_xy
    has_point = is_fitted.copy()
    while True:
        counts = graph @ has_point.astype(np.float32)
        reached = (counts > 0) & ~has_point
        if not reached.any():
            break
        xy[reached] = (graph @ xy)[reached] / counts[reached, None]  # rows without a point add zero
        has_point |= reached
    xy[~has_point] = np.nan
    return xy


def descend(start: Floats, neighbors: Neighbors, cosines: Floats, min_dist: float, seed: int) -> Floats:
    """Move all points by UMAP's stochastic gradient descent, float32 (n, 2). The same input gives the same points.

    Args:
        start: float32 (n, 2).
        neighbors: the nearest rows of each, int32 (n, k), -1 for none.
        cosines: to them, float32 (n, k).
        min_dist: UMAP's.
        seed: of the negative samples.
    """
    umap_, layouts = optional_import("umap.umap_"), optional_import("umap.layouts")
    indices, distances = with_self(neighbors, cosines)
    state = np.random.RandomState(seed % 2**32)
    graph = umap_.fuzzy_simplicial_set(
        np.empty((len(start), 1), np.float32),  # not read, since the neighbours are given
        indices.shape[1],
        state,
        "cosine",
        knn_indices=indices,
        knn_dists=distances,
    )[0].tocoo()
    is_used = graph.data >= graph.data.max() / EPOCHS  # a weaker edge would be drawn less than once
    head, tail, weights = graph.row[is_used], graph.col[is_used], graph.data[is_used]
    del graph, indices, distances
    a, b = umap_.find_ab_params(1.0, min_dist)
    xy = (start + state.normal(scale=JITTER, size=start.shape)).astype(np.float32, order="C")
    rng_state = state.randint(np.iinfo(np.int32).min + 1, np.iinfo(np.int32).max - 1, 3).astype(np.int64)
    every = umap_.make_epochs_per_sample(weights, EPOCHS)
    gamma = 1.0
    layouts.optimize_layout_euclidean(
        *(xy, xy, head, tail, EPOCHS, len(xy), every, a, b, rng_state, gamma, LEARNING_RATE, NEGATIVE_SAMPLES),
        move_other=True,
    )
    return xy


def with_self(neighbors: Neighbors, cosines: Floats) -> tuple[Neighbors, Floats]:
    """Neighbours as UMAP takes them, (n, k + 1) each: the row itself first, and distances 1 - cosine.

    A missing neighbour stays -1, which UMAP leaves out, at the distance of the row's farthest one.
    """
    rows = np.arange(len(neighbors), dtype=np.int32)
    distances = np.where(neighbors < 0, 0, np.maximum(1 - cosines, 0)).astype(np.float32)
    distances = np.where(neighbors < 0, distances.max(axis=1, keepdims=True, initial=0), distances)
    return np.column_stack([rows, neighbors]), np.column_stack([np.zeros_like(distances[:, :1]), distances])


def _joined(neighbors: Neighbors) -> Any:
    """Sparse matrix (n, n) that is not zero where one of two rows is among the other's neighbours."""
    sparse = optional_import("scipy.sparse")
    row, column = np.nonzero(neighbors >= 0)
    of_rows = sparse.csr_matrix(
        (np.ones(len(row), np.float32), (row, neighbors[row, column])), (len(neighbors), len(neighbors))
    )
    return of_rows + of_rows.T
