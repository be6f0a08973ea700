"""The nearest rows of a row, by position in `Merged.rows`."""

import numpy as np
import numpy.typing as npt

from embedkit.analysis.findings.evidence import Ids
from embedkit.analysis.similarity.all_neighbors import RowNeighbors


def neighbor_positions(neighbors: RowNeighbors, index: int) -> Ids:
    """Positions of the nearest rows of the row at `index` of `neighbors.positions`, the nearest first, int64 (k,)."""
    found = neighbors.neighbors[index]
    positions: Ids = neighbors.positions[found[found >= 0]]
    return positions


def neighbor_sources(neighbors: RowNeighbors, sources: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Source codes of the neighbours, int32 (n, k), -1 where there are fewer. sources: of all rows, by position."""
    own = sources[neighbors.positions]
    if not len(own):
        return np.full(neighbors.neighbors.shape, -1, np.int32)
    codes: npt.NDArray[np.int32] = np.where(neighbors.neighbors >= 0, own[neighbors.neighbors], np.int32(-1))
    return codes
