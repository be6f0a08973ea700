"""A fake merged run of an array in memory, for tests of many small cases."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from embedkit.analysis.similarity.duplicates.tile_product import NumpyTileProduct, TileProduct
from embedkit.subset.row_tiles import RowTiles


class FakeMerged:
    """As much of Merged as RowTiles uses. The ids are not positions. A vector of zeros is an empty text."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        self.ids = 10 + 3 * np.arange(len(vectors))
        self.has_text = self._vectors.any(axis=1)
        self.dim = vectors.shape[1]
        self.matrix: Any = SimpleNamespace(read_ahead=lambda *at: None, release=lambda *at: None)

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        assert (ids % 3 == 1).all()
        return self._vectors[(ids - 10) // 3]


class StreamedProduct(NumpyTileProduct):
    """NumPy, without room to keep any tile."""

    def stripe_rows(self, dim: int, tile_rows: int) -> int:
        return 0


def row_tiles(vectors: np.ndarray, tile_rows: int = 100, product: TileProduct | None = None) -> RowTiles:
    merged: Any = FakeMerged(vectors)
    return RowTiles(merged, product or NumpyTileProduct(), tile_rows)


def naive_cosines(vectors: np.ndarray) -> list[list[float]]:
    """Cosines of all pairs of rows that are not zeros, by loops in float64."""
    rows = [[float(x) for x in row] for row in vectors if row.any()]
    lengths = [sum(x * x for x in row) ** 0.5 for row in rows]
    return [
        [sum(x * y for x, y in zip(a, b, strict=True)) / (la * lb) for b, lb in zip(rows, lengths, strict=True)]
        for a, la in zip(rows, lengths, strict=True)
    ]
