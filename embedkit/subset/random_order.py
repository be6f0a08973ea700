"""Rows in a random order that is the same on every machine: by the hash of their place in the data set."""

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def sample_at_random(hashes: Hashes, k: int) -> Ids:
    """Positions of the k rows with the smallest hashes, in that order, int64 (min(k, n),); all if there are no more.

    hashes: `embedkit.data.row_hash` of each row, uint64 (n,). Of equal ones, the lower position comes first.
    """
    order: Ids = np.lexsort((np.arange(len(hashes)), hashes))
    return order[:k]


def equal_shares(sources: npt.NDArray[np.integer], hashes: Hashes, k: int) -> Ids:
    """Select k rows so that each source has the same number of them, or all its rows if it has fewer.

    Every source gives its first row, then its second, and so on, until there are k. Which row of a source is first, and
    which sources give one in the last round, is random. The first j rows are the selection of j rows.

    Args:
        sources: source code of each row, int (n,).
        hashes: as in sample_at_random.
        k: how many; all if there are no more.

    Returns:
        Positions in the order of selection, int64 (min(k, n),).
    """
    order = np.lexsort((np.arange(len(hashes)), hashes, sources))
    in_order = sources[order]
    rounds = np.empty(len(order), np.int64)
    rounds[order] = np.arange(len(order)) - np.searchsorted(in_order, in_order)
    selected: Ids = np.lexsort((np.arange(len(hashes)), hashes, rounds))[:k]
    return selected
