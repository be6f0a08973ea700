"""The radius of each row of A: the cosine to its k-th nearest row of A."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.all_neighbors import AllNeighborsOptions, neighbors_of_all
from embedkit.analysis.similarity.neighbors import nearest

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Radii(NamedTuple):
    """Cosine of each row of A with a text to its k-th nearest, float32 (n,), and how it was found.

    recall: share of the k nearest rows that an approximate search found. What it misses makes the k-th cosine lower, so
    the radius wider, and more rows covered.
    """

    cosines: Floats
    method: Literal["exact", "approximate"]
    recall: float | None


def find_radii(
    merged: Merged, options: AllNeighborsOptions, progress: Callable[[int], None] = lambda rows: None
) -> Radii:
    """Find the radii of all rows with a text. With k rows or fewer, that of the furthest row; 1 for a single row.

    progress: called with the number of further rows that were compared.
    """
    found = neighbors_of_all(merged, options, progress)
    return Radii(_last(found.cosines).astype(np.float32), found.method, found.recall)


def exact_radii(merged: Merged, places: Ids, k: int) -> Doubles:
    """The exact radii of some rows, float64 (m,). places: among the rows with a text."""
    ids = merged.ids[merged.has_text][places]
    return _last(nearest(merged, merged.vectors(ids), k, ids).cosines)


def _last(cosines: Floats | Doubles) -> Doubles:
    """The last cosine of each line that is there, float64 (n,); 1 if none is."""
    count = (~np.isnan(cosines)).sum(axis=1)
    last = np.take_along_axis(cosines, np.maximum(count - 1, 0)[:, None], 1)[:, 0].astype(np.float64)
    last[count == 0] = 1
    return last
