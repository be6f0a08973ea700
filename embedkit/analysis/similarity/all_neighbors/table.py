"""The nearest rows of every row as a table."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.all_neighbors.find import RowNeighbors


def neighbors_table(merged: Merged, found: RowNeighbors) -> pl.DataFrame:
    """One line per row with a text, by id.

    Columns: id, neighbors (ids, the nearest first: Array of k Int64) and cosines (to them: Array of k Float32). Where
    there are fewer than k, the last ones are null.
    """
    ids = merged.ids[found.positions]
    is_there = pl.Series(found.neighbors.ravel() >= 0)
    columns = {"neighbors": ids[np.maximum(found.neighbors, 0)].ravel(), "cosines": found.cosines.ravel()}
    arrays = [
        pl.select(pl.when(is_there).then(pl.Series(numbers))).to_series().reshape((len(ids), found.k)).alias(name)
        for name, numbers in columns.items()
    ]
    return pl.DataFrame([pl.Series("id", ids), *arrays])


def nearest_of(merged: Merged, found: RowNeighbors, ids: npt.NDArray[np.int64]) -> dict[str, list[list[Any]]]:
    """The nearest rows of some rows, for JSON: ids and cosines (to 4 decimals), a list for each of `ids`.

    A row without a text has none.
    """
    near_ids: list[list[int]] = []
    cosines: list[list[float]] = []
    with_text = merged.ids[found.positions]
    at = np.minimum(np.searchsorted(with_text, ids), max(len(with_text) - 1, 0))
    for id_, row in zip(ids.tolist(), at.tolist(), strict=True):
        is_there = len(with_text) > 0 and with_text[row] == id_
        near = found.neighbors[row][found.neighbors[row] >= 0] if is_there else np.empty(0, np.int32)
        near_ids.append(with_text[near].tolist())
        cosines.append([round(float(cosine), 4) for cosine in (found.cosines[row][: len(near)] if is_there else ())])
    return {"ids": near_ids, "cosines": cosines}
