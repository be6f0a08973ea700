"""A map of the rows: UMAP on a sample stratified by source, the other rows placed among their nearest sampled ones.

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
from embedkit.analysis.stratified_sample import stratified

PLACED_ROWS = 1024
"""Rows that are placed at once: 200 MB of cosines with a sample of 50,000."""
FEWEST = 5
"""Rows under which there is nothing to lay out."""


@dataclass(frozen=True)
class UmapMap:
    """Where the rows with a text are on the map.

    positions: in `Merged.rows`, ascending, int64 (n,). xy: float32 (n, 2), in no unit. placed: bool (n,): True for
    rows that were not in the sample but put among their nearest sampled rows. seed, neighbors, min_dist: as used.
    """

    positions: npt.NDArray[np.int64]
    xy: npt.NDArray[np.float32]
    placed: npt.NDArray[np.bool_]
    seed: int
    neighbors: int
    min_dist: float


def make_map(
    merged: Merged,
    size: int = 50_000,
    seed: int = 0,
    neighbors: int = 15,
    min_dist: float = 0.1,
    place_among: int = 5,
    place: bool = True,
    progress: Callable[[int], None] = lambda rows: None,
) -> UmapMap:
    """Lay out a sample by UMAP (cosine), and place the rest.

    Args:
        merged: the rows.
        size: rows of the sample, each source with its share and at least a few.
        seed: of sample and layout. With a seed UMAP uses one thread, so that its result can be had again.
        neighbors: UMAP's n_neighbors; fewer where the sample is smaller.
        min_dist: UMAP's min_dist.
        place_among: a row outside the sample goes to the mean of so many nearest sampled rows (exact, by cosine),
            weighted by 1 / (1 - cosine): one that is equal to a sampled row goes to its place.
        place: False leaves the rest out.
        progress: is told how many rows were placed since it was last called, those of the sample included.
    """
    at = stratified(merged, size, seed)
    sample = np.array(merged.vectors(merged.ids[at]))
    neighbors = max(min(neighbors, len(at) - 1), 1)
    laid = _lay_out(sample, seed, neighbors, min_dist)
    if not place or len(at) == merged.has_text.sum():
        return UmapMap(at, laid, np.zeros(len(at), bool), seed, neighbors, min_dist)
    positions = np.flatnonzero(merged.has_text)
    placed = ~np.isin(positions, at)
    xy = np.empty((len(positions), 2), np.float32)
    xy[~placed] = laid
    done = 0
    numbers = np.arange(len(at))
    for ids, vectors in read_ahead(merged, PLACED_ROWS):
        here = slice(done, done + len(ids))
        rest = placed[here]
        found = top_k(vectors[rest], [(numbers, sample)], min(place_among, len(at)))
        weights = 1 / (1 - found.cosines + 1e-6)
        weights /= weights.sum(axis=1, keepdims=True)
        xy[done + np.flatnonzero(rest)] = (laid[found.ids] * weights[:, :, None]).sum(axis=1)
        done += len(ids)
        progress(len(ids))
    return UmapMap(positions, xy, placed, seed, neighbors, min_dist)


def _lay_out(vectors: npt.NDArray[np.float32], seed: int, neighbors: int, min_dist: float) -> npt.NDArray[np.float32]:
    """UMAP's coordinates, float32 (n, 2); a few rows stand on a circle."""
    if len(vectors) < FEWEST:
        angles = np.arange(len(vectors)) * (2 * np.pi / max(len(vectors), 1))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    umap = optional_import("umap")
    reducer = umap.UMAP(
        n_neighbors=neighbors,
        min_dist=min_dist,
        metric="cosine",
        random_state=seed % 2**32,
        n_jobs=1,
        init="spectral" if len(vectors) > 4 * FEWEST else "random",  # a spectral start fails on a handful
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the one thread that a seed asks for, and graphs in several pieces
        laid: npt.NDArray[np.float32] = np.asarray(reducer.fit_transform(vectors), np.float32)
    return laid
