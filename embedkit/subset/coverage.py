"""The rows from which no other row is far: farthest-first traversal, greedy k-center.

The first row is the one nearest to the mean of all unit vectors. Each next one is the row that is farthest from its
nearest selected row. For every k, the first k rows leave no row more than twice as far, in Euclidean distance, as the
best k rows would (Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical Computer Science
1985). On unit vectors the order by Euclidean distance is that by cosine: |a - b|^2 = 2 (1 - cos).

Plainly done, every selected row costs a pass over all rows. A row's distance only falls as rows are selected, so an old
distance is an upper bound. A pool of the rows with the largest distances is kept in memory and brought up to date after
every selection. While its farthest row is farther than any old distance outside the pool, it is the farthest of all.
Then one pass brings all rows up to date with all rows selected meanwhile, as one matrix product. In the same way, only
the farthest rows of the pool are brought up to date after every single selection, and the pool with many at once. A
matrix product takes a twentieth of the time of as many products with one vector. The selected rows are those of the
plain traversal.

Cosines are rounded (nearest_selected.py). Of rows that are equally far then, the one with the lowest id is selected.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedkit.analysis.similarity.duplicates.tile_product import TileProduct
from embedkit.subset.nearest_selected import NearestSelected, rounded
from embedkit.subset.row_tiles import RowTiles

POOL_ROWS = 65_536
"""Rows of the pool: 256 MB of 1,024 float32 each."""
INNER_ROWS = 2_048
"""Rows of the pool that are brought up to date after every single selection: 8 MB of 1,024 float32 each."""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Traversal:
    """Rows in the order of selection.

    selected: positions, int64 (m,). distances: 1 - cosine of each to the nearest row selected before it, float32 (m,),
    NaN for the first. found: the nearest selected row of every row. passes: over all rows, without the one that finds
    the first row.
    """

    selected: Ids
    distances: Floats
    found: NearestSelected
    passes: int


def farthest_first(
    rows: RowTiles,
    k: int,
    advance: Callable[[int], object] = lambda selected: None,
    pool_rows: int = POOL_ROWS,
    inner_rows: int = INNER_ROWS,
) -> Traversal:
    """Select k rows, or fewer if all others have the vector of a selected one.

    Args:
        rows: to choose from.
        k: how many to select, 1 or more.
        advance: gets the number of rows that were selected since the last call.
        pool_rows, inner_rows: 1 or more. They set time and memory, and never change the result.
    """
    found = NearestSelected(rows)
    selected: list[int] = []
    cosines: list[float] = []
    passes = 0
    new = _Picks([_nearest_to_mean(rows)], [float("nan")]) if len(rows) else _Picks([], [])
    while new.positions:
        found.add(np.array(new.positions))
        passes += 1
        advance(len(new.positions))
        selected += new.positions
        cosines += new.cosines
        new = _pick_from_pool(rows, found.cosines, k - len(selected), pool_rows, inner_rows)
    return Traversal(np.array(selected, np.int64), 1 - np.array(cosines, np.float32), found, passes)


class _Picks(NamedTuple):
    """Selected positions, and the cosine of each to the nearest row selected before."""

    positions: list[int]
    cosines: list[float]


def _nearest_to_mean(rows: RowTiles) -> int:
    """Position of the row nearest to the mean of the unit vectors; the lowest of those that are equally near."""
    mean = rows.product.put(rows.mean[None])
    cosines = np.empty(len(rows), np.float32)
    for piece, tile in rows.tiles():
        cosines[piece] = rounded(rows.product.row_maxima(tile, mean)[1] / rows.norms[piece])
    return int(cosines.argmax())


def _pick_from_pool(rows: RowTiles, cosines: Floats, most: int, pool_rows: int, inner_rows: int) -> _Picks:
    """At most `most` next rows of the traversal: as many as the pool can decide on. None if only copies are left."""
    picks = _Picks([], [])
    if most <= 0:
        return picks
    at, border = farthest_rows(cosines, pool_rows)
    pool = _Pool(rows.product, rows.put(at), at, cosines[at])
    while len(picks.positions) < most:
        inner, inner_border = pool.farthest(inner_rows)
        new = inner.pick(most - len(picks.positions), min(border, inner_border))
        if not new.positions:
            break
        picks.positions.extend(new.positions)
        picks.cosines.extend(new.cosines)
        pool.select(np.array(new.positions))
        pool.drop(border)
    return picks


Border = tuple[float, int]
"""The smallest (cosine, position) of the rows outside a pool. Rows below it are farther than any of those."""


def farthest_rows(cosines: Floats, count: int) -> tuple[Ids, Border]:
    """The rows with the smallest (cosine, position).

    Args:
        cosines: float32 (n,).
        count: how many.

    Returns:
        Their positions, ascending, int64 (min(count, n),); and the border to the others.
    """
    if len(cosines) <= count:
        return np.arange(len(cosines)), (np.inf, -1)
    border = np.partition(cosines, count)[count]
    below = np.flatnonzero(cosines < border)
    equal = np.flatnonzero(cosines == border)
    taken = count - len(below)
    return np.sort(np.concatenate([below, equal[:taken]])), (float(border), int(equal[taken]))


class _Pool:
    """Rows in memory, with their cosines to the nearest selected row.

    vectors: unit vectors where they are multiplied. positions: ascending, int64 (m,). cosines: float32 (m,).
    """

    def __init__(self, product: TileProduct, vectors: Any, positions: Ids, cosines: Floats) -> None:
        self._product = product
        self._vectors = vectors
        self._positions = positions
        self._cosines = cosines

    def farthest(self, count: int) -> tuple["_Pool", Border]:
        """A pool of the `count` farthest rows, and its border to the other rows of this one."""
        at, (cosine, outside) = farthest_rows(self._cosines, count)
        inner = _Pool(self._product, self._product.take(self._vectors, at), self._positions[at], self._cosines[at])
        return inner, (cosine, int(self._positions[outside]) if outside >= 0 else outside)

    def pick(self, most: int, border: Border) -> _Picks:
        """Select the farthest row, one after the other, as long as it is below the border."""
        picks = _Picks([], [])
        while len(picks.positions) < most and len(self._positions):
            at = int(self._cosines.argmin())  # the lowest of those that are equally far
            cosine, position = float(self._cosines[at]), int(self._positions[at])
            if cosine == 1 or (cosine, position) > border:
                break
            picks.positions.append(position)
            picks.cosines.append(cosine)
            self.select(np.array([position]))
            self.drop(border)
        return picks

    def select(self, positions: Ids) -> None:
        """Bring the cosines up to date with rows of this pool that were selected."""
        at = np.searchsorted(self._positions, positions)
        _, products = self._product.row_maxima(self._vectors, self._product.take(self._vectors, at))
        np.maximum(self._cosines, rounded(products), out=self._cosines)
        self._cosines[at] = 1

    def drop(self, border: Border) -> None:
        """Drop rows that this pool can no longer select, once they are half of it."""
        cosine, position = border
        is_open = (self._cosines < cosine) | ((self._cosines == cosine) & (self._positions < position))
        if 2 * np.count_nonzero(is_open) < len(is_open):
            at = np.flatnonzero(is_open)
            self._vectors = self._product.take(self._vectors, at)
            self._positions, self._cosines = self._positions[at], self._cosines[at]
