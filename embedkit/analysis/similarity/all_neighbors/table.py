"""The nearest rows of every row as a table."""

import numpy as np
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
