"""UMAP layout of the rows: fitted on a sample stratified by source; the other rows go to their nearest sampled rows.

Source: McInnes, Healy, Melville, UMAP, arXiv 1802.03426; umap-learn.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.neighbors import read_ahead, top_k
from embedkit.analysis.stratified_sample import sample_rows_with_text

PLACED_ROWS = 1024
"""Rows placed at once: 200 MB of cosines with a sample of 50,000."""
MIN_ROWS = 5
"""UMAP needs at least so many rows. Fewer are put on a circle."""


@dataclass(frozen=True)
class UmapLayout:
    """Coordinates of the rows with a text.

    positions: rows in `Merged.rows`, ascending, int64 (n,). xy: float32 (n, 2), without a unit. placed: bool (n,): True
    for rows outside the sample, which were placed among their nearest sampled rows. seed, neighbors, min_dist: the
    settings used.
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

    size: rows of the sample; each source has its share, and at least a few. seed: of the sample and of UMAP. With a
    seed UMAP uses one thread, so that the result can be reproduced. neighbors: UMAP's n_neighbors, less if the sample
    is smaller. min_dist: UMAP's min_dist. place_among: a row outside the sample goes to the mean of so many nearest
    sampled rows (exact, by cosine), weighted by 1 / (1 - cosine), so that a row equal to a sampled one goes to the same
    place. place: whether to place the rows outside the sample at all.
    """

    size: int = 50_000
    seed: int = 0
    neighbors: int = 15
    min_dist: float = 0.1
    place_among: int = 5
    place: bool = True


def make_umap_layout(
    merged: Merged, options: UmapOptions | None = None, progress: Callable[[int], None] = lambda rows: None
) -> UmapLayout:
    """Fit UMAP (cosine) on a sample and place the other rows.

    Args:
        merged: the rows.
        options: settings; the defaults if None.
        progress: called with the number of further rows that are done, sampled ones included.
    """
    options = options or UmapOptions()
    seed, min_dist = options.seed, options.min_dist
    at = sample_rows_with_text(merged, options.size, seed)
    sample = np.array(merged.vectors(merged.ids[at]))
    neighbors = max(min(options.neighbors, len(at) - 1), 1)
    sample_xy = fit_umap(sample, seed, neighbors, min_dist)
    if not options.place or len(at) == merged.has_text.sum():
        return UmapLayout(at, sample_xy, np.zeros(len(at), bool), seed, neighbors, min_dist)
    positions = np.flatnonzero(merged.has_text)
    placed = ~np.isin(positions, at)
    xy = np.empty((len(positions), 2), np.float32)
    xy[~placed] = sample_xy
    done = 0
    numbers = np.arange(len(at))
    for ids, vectors in read_ahead(merged, PLACED_ROWS):
        rest = placed[done : done + len(ids)]
        found = top_k(vectors[rest], [(numbers, sample)], min(options.place_among, len(at)))
        weights = 1 / (1 - found.cosines + 1e-6)
        weights /= weights.sum(axis=1, keepdims=True)
        xy[done + np.flatnonzero(rest)] = (sample_xy[found.ids] * weights[:, :, None]).sum(axis=1)
        done += len(ids)
        progress(len(ids))
    return UmapLayout(positions, xy, placed, seed, neighbors, min_dist)


def fit_umap(
    vectors: npt.NDArray[np.float32], seed: int, neighbors: int, min_dist: float, dims: int = 2
) -> npt.NDArray[np.float32]:
    """UMAP's coordinates by cosine, float32 (n, dims); points of a circle for fewer than MIN_ROWS rows.

    The same vectors, seed and settings give the same coordinates: UMAP runs on one thread.
    """
    if len(vectors) < MIN_ROWS:
        angles = np.arange(len(vectors)) * (2 * np.pi / max(len(vectors), 1))
        circle = np.zeros((len(vectors), dims), np.float32)
        circle[:, 0], circle[:, 1] = np.cos(angles), np.sin(angles)
        return circle
    umap = optional_import("umap")
    reducer = umap.UMAP(
        n_components=dims,
        n_neighbors=neighbors,
        min_dist=min_dist,
        metric="cosine",
        random_state=seed % 2**32,
        n_jobs=1,
        init="spectral" if len(vectors) > 4 * MIN_ROWS else "random",  # a spectral start fails on a few rows
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the single thread with a seed, and graphs in several pieces
        xy: npt.NDArray[np.float32] = np.asarray(reducer.fit_transform(vectors), np.float32)
    return xy
