"""The nearest rows of every row: exact where that is fast enough, else approximate with its recall measured."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.all_neighbors.best_so_far import BestSoFar
from embedkit.analysis.similarity.all_neighbors.search import compare_with_all, compare_with_cells
from embedkit.analysis.similarity.duplicates.cells import nearest_cells
from embedkit.analysis.similarity.duplicates.exact import tiles
from embedkit.analysis.similarity.duplicates.tile_product import TorchTileProduct, choose_tile_product
from embedkit.analysis.similarity.neighbors import Ids, cosines_of, nearest
from embedkit.data import row_hash
from embedkit.errors import UsageError
from embedkit.storage import available_cpus

EXACT_ROWS = 50_000
"""Most rows for which a CPU compares every row with all rows. Time grows with the square of the rows."""
TILE_ROWS = 8192
"""Rows compared at once: 32 MB of 1,024 numbers each."""
FINAL_ROWS = 256
"""Rows whose final cosines are computed at once by each thread: 10 MB of neighbours of 1,024 numbers each."""
SAME_COSINE = 1e-6
"""Two neighbours are equally near if their cosines differ by less: it is the rounding of the search."""


@dataclass(frozen=True)
class RowNeighbors:
    """The k nearest rows of every row with a text, by cosine; a row is not its own neighbour.

    positions: rows of `Merged.rows` with a text, ascending, int64 (n,). neighbors: indices into `positions`, the
    nearest first, of equal cosines the lower index first, int32 (n, k), -1 where there are fewer rows. cosines:
    float32 (n, k), NaN there. method: exact or approximate. recall, of an approximate search: the share of the exact k
    neighbours that it found for `sampled_rows` random rows, None if the search was exact. A neighbour that is as near
    as the exact one, to SAME_COSINE, counts as found.

    The search compares in float32: of several rows that are equally near to SAME_COSINE, any may be the k-th.
    """

    positions: Ids
    neighbors: npt.NDArray[np.int32]
    cosines: npt.NDArray[np.float32]
    method: Literal["exact", "approximate"]
    recall: float | None = None
    sampled_rows: int = 0

    @property
    def k(self) -> int:
        """Neighbours per row."""
        return int(self.neighbors.shape[1])


@dataclass(frozen=True)
class AllNeighborsOptions:
    """Settings of the search for the nearest rows of every row.

    k: neighbours per row. exact_rows: up to so many rows a CPU compares every row with all rows; a GPU always does.
    cells: number of cells of the approximate search; None for twice the square root of the rows. probes: cells with
    whose members each row is compared. sample: rows on which the recall of the approximate search is measured. seed: of
    k-means and of that sample; the same seed gives the same result on the same machine with the same number of threads.
    tile_rows: rows compared at once; it sets the memory, and changes cosines by nothing.
    """

    k: int = 10
    exact_rows: int = EXACT_ROWS
    cells: int | None = None
    probes: int = 8
    sample: int = 1000
    seed: int = 0
    tile_rows: int = TILE_ROWS


def neighbors_of_all(
    merged: Merged, options: AllNeighborsOptions | None = None, progress: Callable[[int], None] = lambda rows: None
) -> RowNeighbors:
    """Find the k nearest rows of every chosen row with a text.

    Args:
        merged: the rows.
        options: settings of the search; the defaults if None.
        progress: called with the number of further rows that were compared with all that are near them.

    Raises:
        UsageError: k is less than 1.
    """
    options = options or AllNeighborsOptions()
    if options.k < 1:
        raise UsageError(f"k {options.k}: expected at least one neighbour per row")
    positions = np.flatnonzero(merged.has_text)
    ids = merged.ids[positions]
    best = BestSoFar(len(ids), options.k)
    product = choose_tile_product()
    if len(ids) <= max(options.exact_rows, 1) or isinstance(product, TorchTileProduct):
        compare_with_all(merged, ids, product, best, options.tile_rows, progress)
        return RowNeighbors(positions, *_final(merged, ids, best), "exact")
    cells = options.cells or int(np.ceil(2 * np.sqrt(len(ids))))
    near = nearest_cells(merged, ids, cells, options.probes, options.seed)
    compare_with_cells(merged, ids, near, product, best, options.tile_rows, progress)
    del near
    neighbors, cosines = _final(merged, ids, best)
    by_hash = np.argsort(row_hash(options.seed + 1, ids), kind="stable")
    sampled = np.sort(by_hash[: options.sample])
    recall = _recall(merged, ids[sampled], cosines[sampled])
    return RowNeighbors(positions, neighbors, cosines, "approximate", recall, len(sampled))


def _final(merged: Merged, ids: Ids, best: BestSoFar) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Compute the cosines of the candidates in float64, and sort them. Uses the memory of `best`."""

    def settle(rows: slice) -> None:
        indices = best.indices[rows]
        row, column = np.nonzero(indices >= 0)
        left, right = merged.vectors(ids[rows]), merged.vectors(ids[indices[row, column]])
        cosines = np.full(indices.shape, np.nan, np.float32)
        cosines[row, column] = cosines_of(left, row, right, np.arange(len(row)))
        order = np.lexsort((indices, -cosines), axis=1)  # NaN comes last
        best.indices[rows] = np.take_along_axis(indices, order, 1)
        best.scores[rows] = np.take_along_axis(cosines, order, 1)
        merged.matrix.release(int(ids[rows][0]), int(ids[rows][-1]) + 1)

    with ThreadPoolExecutor(available_cpus(), "neighbors") as pool:
        for _ in pool.map(settle, tiles(ids, FINAL_ROWS)):
            pass
    return best.indices, best.scores


def _recall(merged: Merged, sampled: Ids, cosines: npt.NDArray[np.float32]) -> float | None:
    """Share of the exact neighbours of the sampled ids that were found. cosines: those found, float32 (m, k)."""
    if not len(sampled):
        return None
    exact = nearest(merged, merged.vectors(sampled), cosines.shape[1], sampled).cosines
    is_row = ~np.isnan(exact)
    if not is_row.any():
        return None
    last = np.nanmin(np.where(is_row, exact, np.inf), axis=1)
    found = cosines >= last[:, None] - SAME_COSINE  # False for NaN
    return float(found.sum() / is_row.sum())
