"""Which rows have the same text, or nearly the same: connected by equal keys and by pairs of near-duplicates."""

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.optional_import import optional_import

SAME_COSINE = 0.99
"""Smallest cosine of pairs that read the same."""

Ids = npt.NDArray[np.int64]


def same_text_labels(ids: Ids, text_key: npt.NDArray[np.uint64], pairs: pl.DataFrame | None) -> Ids:
    """Label of each row, int64 (n,); rows that are connected have the same.

    Args:
        ids: of the rows, ascending, int64 (n,).
        text_key: equal for equal texts, uint64 (n,).
        pairs: near-duplicates, id_a, id_b and cosine; None for none. Only those with SAME_COSINE or more connect rows,
            since rows with one long template in common are near as well. Pairs with other ids are left out.
    """
    labels = np.unique(text_key, return_inverse=True)[1].astype(np.int64)
    if pairs is None or not pairs.height:
        return labels
    chosen = pl.Series(ids).implode()
    known = pairs.filter(pl.col("cosine") >= SAME_COSINE, pl.col("id_a").is_in(chosen), pl.col("id_b").is_in(chosen))
    a, b = (labels[np.searchsorted(ids, known[name].to_numpy())] for name in ("id_a", "id_b"))
    count = int(labels.max(initial=-1)) + 1
    edges = optional_import("scipy.sparse").coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    components = optional_import("scipy.sparse.csgraph").connected_components(edges, directed=False)[1]
    connected: Ids = components.astype(np.int64)[labels]
    return connected
