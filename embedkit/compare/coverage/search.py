"""The two searches for the rows of A that are near rows of B: all rows of A, or those of the nearest cells.

Both keep, for each row of B, the nearest row of A, and the row of A within whose radius it is deepest.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates.cells import assign_to_cells, train_cells
from embedkit.analysis.similarity.duplicates.exact import tiles
from embedkit.analysis.similarity.duplicates.tile_product import TileProduct
from embedkit.analysis.similarity.neighbors import read_ahead
from embedkit.progress_clock import as_rows

STRIPE_ROWS = 262_144
"""Most rows that a GPU holds at once: 1 GB of 1,024 numbers each."""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Progress = Callable[[int], object]


class NearSoFar:
    """What is known so far of each of n rows of B: 16 bytes per row.

    nearest, deepest: places among A's rows with a text, int32 (n,), -1 for none. cosines: of the nearest, float32 (n,).
    margins: cosine minus radius of the deepest, float32 (n,). Both are -inf for none.
    """

    def __init__(self, rows: int) -> None:
        self.nearest = np.full(rows, -1, np.int32)
        self.deepest = np.full(rows, -1, np.int32)
        self.cosines = np.full(rows, -np.inf, np.float32)
        self.margins = np.full(rows, -np.inf, np.float32)

    def add(self, rows: Ids, places: Ids, found: tuple[Ids, Floats, Ids, Floats]) -> None:
        """Add what `TileProduct.inside` found. places: of A's rows in the tile. Of equal rows, the lowest place stays.

        rows: each at most once, int64 (m,).
        """
        nearest, cosines, deepest, margins = found
        self._keep(rows, self.nearest, self.cosines, places[nearest], cosines)
        self._keep(rows, self.deepest, self.margins, places[deepest], margins)

    @staticmethod
    def _keep(rows: Ids, known: npt.NDArray[np.int32], scores: Floats, places: Ids, new: Floats) -> None:
        is_better = (new > scores[rows]) | ((new == scores[rows]) & (places < known[rows]))
        better = rows[is_better]
        known[better], scores[better] = places[is_better], new[is_better]


def search_all(
    a: Merged, b: Merged, radii: Floats, product: TileProduct, tile_rows: int, progress: Progress
) -> NearSoFar:
    """Compare every row of B with every row of A: hold a stripe of A, and read all rows of B past it.

    radii: smallest cosine to each row of A that is within its radius, float32 (rows of A with a text,).
    """
    ids = a.ids[a.has_text]
    found = NearSoFar(int(b.has_text.sum()))
    for stripe in tiles(ids, min(product.stripe_rows(a.dim, tile_rows), max(STRIPE_ROWS, tile_rows))):
        held, places = product.put(a.vectors(ids[stripe])), np.arange(len(ids))[stripe]
        done = 0
        for block, vectors in read_ahead(b, tile_rows):
            rows = np.arange(done, done + len(block))
            found.add(rows, places, product.inside(product.put(vectors), held, radii[stripe]))
            done += len(block)
        a.matrix.release()
        progress(len(places))
    return found


def search_cells(
    a: Merged,
    b: Merged,
    radii: Floats,
    product: TileProduct,
    tile_rows: int,
    progress: Progress,
    cells: int,
    probes: int,
    seed: int,
) -> NearSoFar:
    """Compare every row of B with the rows of A that are in its nearest cells. A row of A is in one cell.

    radii: as in `search_all`. cells: k-means cells of A. probes: cells with which a row of B is compared.
    """
    ids_a, ids_b = a.ids[a.has_text], b.ids[b.has_text]
    centres = train_cells(a, ids_a, cells, seed)
    home = assign_to_cells(a, centres, 1)[:, 0]
    near = assign_to_cells(b, centres, probes)
    found = NearSoFar(len(ids_b))
    members_of = _by_cell(home, len(centres))
    visits_of = _by_cell(near.ravel(), len(centres))
    pairs = sum(len(members) * len(visits) for members, visits in zip(members_of, visits_of, strict=True))
    add = as_rows(len(ids_a), pairs, progress)
    for members, visits in zip(members_of, visits_of, strict=True):
        visitors = visits // near.shape[1]
        for tile in tiles(members, tile_rows):
            places = members[tile]
            held = product.put(a.vectors(ids_a[places]))
            for other in tiles(visitors, tile_rows):
                rows = visitors[other]
                vectors = product.put(b.vectors(ids_b[rows]))
                found.add(rows, places, product.inside(vectors, held, radii[places]))
        add(len(members) * len(visits))
    return found


def _by_cell(cells_of: npt.NDArray[np.int32], cells: int) -> list[Ids]:
    """The places that have each cell, ascending."""
    order = np.argsort(cells_of, kind="stable")
    return np.split(order, np.searchsorted(cells_of[order], np.arange(1, cells)))
