"""The vectors of the rows to choose from, in tiles, where they are multiplied."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates.tile_product import TileProduct, choose_tile_product
from embedkit.analysis.similarity.neighbors import norms, read_ahead, units

TILE_ROWS = 16_384
"""Rows of a tile: 64 MB of 1,024 float32 each."""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class RowTiles:
    """The chosen rows with a text. Each is named by its position among them, from 0, in the order of ids.

    ids: of the rows, int64 (n,). Tiles are read again for each pass, unless all fit into the memory that the product
    allows: on a GPU half of what is free, on a CPU a few tiles.
    """

    def __init__(self, merged: Merged, product: TileProduct | None = None, tile_rows: int = TILE_ROWS) -> None:
        self.product = product or choose_tile_product()
        self.ids: Ids = merged.ids[merged.has_text]
        self._merged = merged
        self._tile_rows = tile_rows
        self._keeps = self.product.stripe_rows(merged.dim, tile_rows) >= len(self.ids)
        self._kept: list[tuple[slice, Any]] = []
        self.norms, self.mean = self._measure()

    def __len__(self) -> int:
        return len(self.ids)

    def tiles(self) -> Iterator[tuple[slice, Any]]:
        """Positions and vectors of each tile, as the product's `place` leaves them. `norms` has their norms."""
        if self._kept:
            yield from self._kept
            return
        tiles = ((piece, self.product.place(vectors)) for piece, vectors in self._read())
        if not self._keeps:
            yield from tiles
            return
        self._kept = list(tiles)
        yield from self._kept

    def put(self, at: Ids) -> Any:
        """The unit vectors of some positions, in the order given, as the product's `put` leaves them."""
        return self.product.put(self._merged.vectors(self.ids[at]))

    def unit_vectors(self, at: Ids) -> Floats:
        """The unit vectors of some positions, float32 (m, D)."""
        vectors = self._merged.vectors(self.ids[at])
        return units(vectors, norms(vectors))

    def _read(self) -> Iterator[tuple[slice, Floats]]:
        start = 0
        for ids, vectors in read_ahead(self._merged, self._tile_rows):
            # A view of the file would lose its pages when the next tile is read.
            yield slice(start, start + len(ids)), np.array(vectors) if self._keeps else vectors
            start += len(ids)

    def _measure(self) -> tuple[Floats, Floats]:
        """Norms of all rows, float32 (n,), and the mean of their unit vectors, float32 (D,)."""
        found = np.empty(len(self.ids), np.float32)
        total = np.zeros(self._merged.dim, np.float64)
        for piece, vectors in self._read():
            found[piece] = norms(vectors)
            total += units(vectors, found[piece]).sum(axis=0, dtype=np.float64)
        found[found == 0] = 1  # a vector of zeros has a cosine of 0 to all others
        return found, (total / max(len(self.ids), 1)).astype(np.float32)
