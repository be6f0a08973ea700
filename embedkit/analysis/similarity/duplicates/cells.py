"""Approximate comparison: only rows that share one of their nearest k-means cells."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.duplicates.collector import Collector
from embedkit.analysis.similarity.duplicates.exact import tiles
from embedkit.analysis.similarity.duplicates.tile_product import Ids, TileProduct
from embedkit.analysis.similarity.neighbors import norms, read_ahead, units
from embedkit.data import row_hash
from embedkit.progress_clock import as_rows
from embedkit.storage import available_cpus

TRAINING_ROWS_PER_CELL = 32
ASSIGNED_ROWS = 16_384
"""Rows whose cells are searched at once."""
FILTERED_PAIRS = 1 << 20
"""Pairs that are looked at together. Of a template, a tile has sixteen times as many."""


def nearest_cells(merged: Merged, ids: Ids, cells: int, probes: int, seed: int) -> npt.NDArray[np.int32]:
    """Cells nearest to each row, the nearest first, int32 (n, probes)."""
    return assign_to_cells(merged, train_cells(merged, ids, cells, seed), probes)


def train_cells(merged: Merged, ids: Ids, cells: int, seed: int) -> npt.NDArray[np.float32]:
    """Cut the sphere into k-means cells of these rows. Returns their centres, float32 (at most `cells`, D)."""
    faiss = optional_import("faiss")
    faiss.omp_set_num_threads(available_cpus())
    cells = min(cells, len(ids))
    by_hash = np.argsort(row_hash(seed, ids), kind="stable")
    training = merged.vectors(np.sort(ids[by_hash[: TRAINING_ROWS_PER_CELL * cells]]))
    kmeans = faiss.Kmeans(
        *(merged.dim, cells),
        niter=8,
        seed=seed % 2**31,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=TRAINING_ROWS_PER_CELL,
    )
    kmeans.train(units(training, norms(training)))
    centres: npt.NDArray[np.float32] = kmeans.centroids
    return centres


def assign_to_cells(merged: Merged, centres: npt.NDArray[np.float32], probes: int) -> npt.NDArray[np.int32]:
    """Cells nearest to each chosen row with a text, the nearest first, int32 (n, probes).

    centres: as `train_cells` returns them, perhaps for another run of the same model.
    """
    faiss = optional_import("faiss")
    faiss.omp_set_num_threads(available_cpus())
    index = faiss.IndexFlatIP(merged.dim)
    index.add(centres)
    rows_with_text = int(merged.has_text.sum())
    near = np.empty((rows_with_text, min(probes, len(centres))), np.int32)
    done = 0
    for block, rows in read_ahead(merged, ASSIGNED_ROWS):
        near[done : done + len(block)] = index.search(units(rows, norms(rows)), near.shape[1])[1]
        done += len(block)
    return near


def pairs_in_cells(near: npt.NDArray[np.int32]) -> int:
    """Pairs that are compared if the members of each cell are compared with its visitors. near: cells of each row."""
    visitors = np.bincount(near.ravel())
    return int(np.bincount(near[:, 0], minlength=len(visitors)) @ visitors)


def compare_in_cells(
    merged: Merged,
    ids: Ids,
    near: npt.NDArray[np.int32],
    product: TileProduct,
    found: Collector,
    tile_rows: int,
    progress: Callable[[int], None],
) -> None:
    """Compare the rows of each cell with all rows that have the cell among their nearest ones.

    near: as `nearest_cells` returns it. A row belongs to its first cell and visits all of its cells.
    """
    home = near[:, 0]
    # Group the entries of `near` by cell: each group holds the visitors of one cell.
    order = np.argsort(near, axis=None, kind="stable")
    borders = np.flatnonzero(np.diff(near.ravel()[order])) + 1
    add = as_rows(len(near), pairs_in_cells(near), progress)
    for entries in np.split(order, borders):
        visitors = entries // near.shape[1]
        members = visitors[entries % near.shape[1] == 0]
        for tile in tiles(members, tile_rows):
            rows = product.put(merged.vectors(ids[members[tile]]))
            for other in tiles(visitors, tile_rows):
                others = product.put(merged.vectors(ids[visitors[other]]))
                needless = partial(found.needless, ids[members[tile]], ids[visitors[other]], False)
                i, j, scores = product.above(rows, others, found.min_cosine, needless)
                for pairs in tiles(i, FILTERED_PAIRS):
                    a, b = members[tile][i[pairs]], visitors[other][j[pairs]]
                    # If a also visits b's cell, the pair is met there, too: keep it once.
                    is_met_twice = (near[a] == home[b][:, None]).any(axis=1)
                    once = (a != b) & (~is_met_twice | (a < b))
                    found.add(ids[a[once]], ids[b[once]], scores[pairs][once])
        add(len(members) * len(visitors))
