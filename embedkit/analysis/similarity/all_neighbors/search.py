"""The two searches for the nearest rows of every row: all rows with all rows, or only within cells.

Both find candidates by float32 scores, and leave the final cosines to the caller.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.all_neighbors.best_so_far import BestSoFar
from embedkit.analysis.similarity.duplicates.cells import pairs_in_cells
from embedkit.analysis.similarity.duplicates.exact import tiles
from embedkit.analysis.similarity.duplicates.tile_product import Ids, TileProduct
from embedkit.analysis.similarity.neighbors import read_ahead
from embedkit.progress_clock import as_rows

STRIPE_ROWS = 262_144
"""Most rows that a GPU holds at once: 1 GB. The host holds two copies while it scales them."""


def compare_with_all(
    merged: Merged,
    ids: Ids,
    product: TileProduct,
    best: BestSoFar,
    tile_rows: int,
    progress: Callable[[int], None],
) -> None:
    """Compare every row with all rows: hold a stripe of rows, read all rows past it, then take the next stripe."""
    k = best.indices.shape[1]
    stripe_rows = min(product.stripe_rows(merged.dim, tile_rows), max(STRIPE_ROWS, tile_rows))
    for stripe in tiles(ids, stripe_rows):
        held = product.put(merged.vectors(ids[stripe]))
        done = 0
        for block, vectors in read_ahead(merged, tile_rows):
            at, scores = product.top(product.put(vectors), held, k + 1)  # one more, for the row itself
            best.add(np.arange(done, done + len(block)), stripe.start + at, scores)
            done += len(block)
        progress(len(ids[stripe]))


def compare_with_cells(
    merged: Merged,
    ids: Ids,
    near: npt.NDArray[np.int32],
    product: TileProduct,
    best: BestSoFar,
    tile_rows: int,
    progress: Callable[[int], None],
) -> None:
    """Compare every row with the members of its nearest cells.

    near: as `nearest_cells` returns it. A row is a member of its first cell and visits all of its cells.
    """
    k, probes = best.indices.shape[1], near.shape[1]
    # Group the entries of `near` by cell: each group holds the visitors of one cell.
    order = np.argsort(near, axis=None, kind="stable")
    borders = np.flatnonzero(np.diff(near.ravel()[order])) + 1
    add = as_rows(len(near), pairs_in_cells(near), progress)
    for entries in np.split(order, borders):
        visitors = entries // probes
        members = visitors[entries % probes == 0]
        for tile in tiles(members, tile_rows):
            held = product.put(merged.vectors(ids[members[tile]]))
            for other in tiles(visitors, tile_rows):
                rows = visitors[other]
                at, scores = product.top(product.put(merged.vectors(ids[rows])), held, k + 1)
                best.add(rows, members[tile][at], scores)
        add(len(members) * len(visitors))
