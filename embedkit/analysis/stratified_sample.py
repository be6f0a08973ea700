"""A sample of the rows with a text, by source: the same on every machine and version, whatever the order of rows."""

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.data.sampling import row_hash

LEAST = 5
"""Rows of a source that a sample has at least, if there are so many."""


def stratified(merged: Merged, size: int, seed: int = 0, least: int = LEAST) -> npt.NDArray[np.int64]:
    """Positions in `merged.rows` of about `size` rows with a text, ascending, int64 (m,).

    Each source has its share, rounded, but at least `least` rows; in a source, those with the smallest hash of their
    row number are taken.
    """
    at = np.flatnonzero(merged.has_text)
    if len(at) <= size:
        return at
    sources = merged.rows["source"].to_numpy()[at]
    counts = np.bincount(sources, minlength=len(merged.sources))
    take = np.minimum(np.maximum(np.rint(counts * (size / len(at))).astype(np.int64), least), counts)
    hashes = row_hash(seed, merged.rows["row"].to_numpy()[at])
    order = np.lexsort((hashes, sources))
    starts = np.concatenate([np.zeros(1, np.int64), counts.cumsum()[:-1]])
    rank = np.arange(len(at)) - starts[sources[order]]
    return np.sort(at[order[rank < take[sources[order]]]])
