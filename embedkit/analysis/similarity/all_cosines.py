"""The cosine of every row with one query, in one pass over the vectors."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.neighbors import Neighbors, norms, read_ahead, rounding, top_k, units

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


def cosines_of_all(merged: Merged, query: Floats, blocks: Iterable[tuple[Ids, Floats]] | None = None) -> Floats:
    """Cosine of each chosen row with a query, float32 (rows,), NaN for rows without a text.

    They are off by at most `rounding(D)`.

    Args:
        merged: the rows.
        query: float32 (D,), of any norm except zero.
        blocks: ids and vectors as `read_ahead` yields them; None to read them here.
    """
    unit = units(query[None], norms(query[None]))[0]
    found = np.full(merged.rows.height, np.nan, np.float32)
    for ids, vectors in read_ahead(merged) if blocks is None else blocks:
        with np.errstate(invalid="ignore", divide="ignore"):
            found[np.searchsorted(merged.ids, ids)] = (vectors @ unit) / norms(vectors)
    return found


def nearest_of_all(merged: Merged, query: Floats, cosines: Floats, k: int) -> Neighbors:
    """The k rows with the largest cosine, as `nearest` finds them, from the cosines of all rows.

    Rows that may be among them, by the error of float32, are compared again in float64.
    """
    known = np.flatnonzero(~np.isnan(cosines))
    if len(known) > k:
        floor = np.partition(cosines[known], -k)[-k] - 2 * rounding(merged.dim)
        known = known[cosines[known] >= floor]
    ids = merged.ids[known]
    return top_k(query[None], ((ids[piece], vectors) for piece, vectors in merged.matrix.blocks(ids)), k)
