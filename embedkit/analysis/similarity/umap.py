"""UMAP layout of all rows: fitted on a sample stratified by source, then extended to all rows.

Source: McInnes, Healy, Melville, UMAP, arXiv 1802.03426; umap-learn.
"""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.all_neighbors import AllNeighborsOptions, RowNeighbors, neighbors_of_all
from embedkit.analysis.similarity.neighbors import top_k
from embedkit.analysis.similarity.whole_layout import descend, start_among_neighbors, with_self
from embedkit.analysis.stratified_sample import sample_rows_with_text

UNREACHED_ROWS = 1024
"""Rows compared with the sample at once, where no neighbour leads to it: 200 MB of cosines with 50,000 rows."""
MIN_ROWS = 5
"""UMAP needs at least so many rows. Fewer are put on a circle."""

MAP_ROWS = 50_000
"""Rows that UMAP is fitted on by default. More cost time and keep no more: of 100,000 planted rows, the map kept 0.201
of the ten nearest with 10,000 fitted, 0.195 with all."""
EXACT_ROWS = 10_000
"""Most fitted rows whose nearest ones among them are found by comparing all, where not all rows are fitted. Above that
cells find them: with all pairs compared, 50,000 fitted of 300,000 rows took 61 to 73 s of CPU, half of the map."""
COMPILE_SECONDS, FIT_SECONDS, DESCENT_SECONDS = 40.0, 1.4e-3, 3.6e-4
"""Of a core: numba's compilation, and per row. Measured: all of 100,000 rows fitted in 134 s, with their nearest known;
the descent of 100,000 rows in 35 s, of 400,000 in 144 s."""

Knn = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class UmapLayout:
    """Coordinates of the rows with a text.

    positions: rows in `Merged.rows`, ascending, int64 (n,). xy: float32 (n, 2), without a unit. placed: bool (n,): True
    for rows outside the sample, which joined the map later. seed, neighbors, min_dist: the settings used.
    """

    positions: npt.NDArray[np.int64]
    xy: npt.NDArray[np.float32]
    placed: npt.NDArray[np.bool_]
    seed: int
    neighbors: int
    min_dist: float


@dataclass(frozen=True)
class UmapOptions:
    """Settings of the layout.

    size: rows of the sample; each source has its share, and at least a few. Up to so many rows, all are fitted. seed:
    of the sample and of UMAP. With a seed UMAP uses one thread, so that the result can be reproduced. neighbors:
    nearest rows that each row is joined to, less if there are fewer rows; UMAP's n_neighbors counts the row itself too.
    min_dist: UMAP's min_dist.
    """

    size: int = MAP_ROWS
    seed: int = 0
    neighbors: int = 10
    min_dist: float = 0.1


def make_umap_layout(
    merged: Merged, options: UmapOptions | None = None, neighbors: RowNeighbors | None = None
) -> UmapLayout:
    """Fit UMAP (cosine) on a sample, put the other rows among their nearest rows, and move all by UMAP's descent.

    Args:
        merged: the rows.
        options: settings; the defaults if None.
        neighbors: the nearest rows of every row, if they are known; else they are found here.
    """
    options = options or UmapOptions()
    seed, min_dist = options.seed, options.min_dist
    positions = np.flatnonzero(merged.has_text)
    k = max(min(options.neighbors, len(positions) - 1), 1)
    fitted = sample_rows_with_text(merged, options.size, seed)
    is_fitted = np.isin(positions, fitted)
    if len(positions) < MIN_ROWS:
        return UmapLayout(positions, _circle(len(positions), 2), ~is_fitted, seed, k, min_dist)
    if neighbors is None or neighbors.k < k:
        neighbors = neighbors_of_all(merged, AllNeighborsOptions(k=k, seed=seed))
    near, cosines = neighbors.neighbors[:, :k], neighbors.cosines[:, :k]
    sample = np.array(merged.vectors(merged.ids[fitted]))
    if is_fitted.all():
        return UmapLayout(positions, _fit(sample, (near, cosines), seed, min_dist), ~is_fitted, seed, k, min_dist)
    sample_xy = _fit(sample, _neighbors_in_sample(merged, fitted, k, seed), seed, min_dist)
    start = start_among_neighbors(sample_xy, is_fitted, near)
    _place_unreached(merged, positions, start, sample, sample_xy)
    return UmapLayout(positions, descend(start, near, cosines, min_dist, seed), ~is_fitted, seed, k, min_dist)


def expected_seconds(rows: int, size: int) -> float:
    """Time to lay out `rows` rows, of which `size` are fitted, on one core of the machine that it was measured on.

    It depends on the rows alone, so the number of fitted rows never depends on a clock.
    """
    fitted = min(rows, size)
    return COMPILE_SECONDS + FIT_SECONDS * fitted + (DESCENT_SECONDS * rows if rows > fitted else 0)


def _neighbors_in_sample(merged: Merged, fitted: npt.NDArray[np.int64], k: int, seed: int) -> Knn:
    """The nearest sampled rows of each sampled row: indices, int32 (m, k), and cosines."""
    sample = replace(merged, rows=merged.rows[fitted], has_text=np.ones(len(fitted), bool))
    found = neighbors_of_all(sample, AllNeighborsOptions(k=k, seed=seed, exact_rows=EXACT_ROWS, sample=0))
    return found.neighbors, found.cosines


def _fit(sample: npt.NDArray[np.float32], knn: Knn, seed: int, min_dist: float) -> npt.NDArray[np.float32]:
    indices, distances = with_self(*knn)
    return fit_umap(sample, seed, indices.shape[1], min_dist, knn=(indices, distances))


def _place_unreached(
    merged: Merged,
    positions: npt.NDArray[np.int64],
    start: npt.NDArray[np.float32],
    sample: npt.NDArray[np.float32],
    sample_xy: npt.NDArray[np.float32],
) -> None:
    """Put rows without a point on their nearest sampled row, by cosine. Changes `start`."""
    unreached = np.flatnonzero(np.isnan(start[:, 0]))
    blocks = [(np.arange(len(sample)), sample)]
    for first in range(0, len(unreached), UNREACHED_ROWS):
        rows = unreached[first : first + UNREACHED_ROWS]
        start[rows] = sample_xy[top_k(merged.vectors(merged.ids[positions[rows]]), blocks, 1).ids[:, 0]]


def fit_umap(
    vectors: npt.NDArray[np.float32],
    seed: int,
    neighbors: int,
    min_dist: float,
    dims: int = 2,
    knn: Knn | None = None,
) -> npt.NDArray[np.float32]:
    """UMAP's coordinates by cosine, float32 (n, dims); points of a circle for fewer than MIN_ROWS rows.

    The same vectors, seed and settings give the same coordinates: UMAP runs on one thread. knn: the nearest rows of
    each, itself first, and distances 1 - cosine, (n, neighbors) each; None if umap-learn is to search, which takes
    longer.
    """
    if len(vectors) < MIN_ROWS:
        return _circle(len(vectors), dims)
    umap = optional_import("umap")
    reducer = umap.UMAP(
        n_components=dims,
        n_neighbors=neighbors,
        min_dist=min_dist,
        metric="cosine",
        random_state=seed % 2**32,
        n_jobs=1,
        precomputed_knn=(None, None, None) if knn is None else (*knn, None),
        init="spectral" if len(vectors) > 4 * MIN_ROWS else "random",  # a spectral start fails on a few rows
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the single thread with a seed, and graphs in several pieces
        xy: npt.NDArray[np.float32] = np.asarray(reducer.fit_transform(vectors), np.float32)
    return xy


def _circle(rows: int, dims: int) -> npt.NDArray[np.float32]:
    """Points of a circle, float32 (rows, dims)."""
    angles = np.arange(rows) * (2 * np.pi / max(rows, 1))
    points = np.zeros((rows, dims), np.float32)
    points[:, 0], points[:, 1] = np.cos(angles), np.sin(angles)
    return points
