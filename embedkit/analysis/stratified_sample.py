"""Samples stratified by source: each source gets its share of the rows, and small sources are not lost."""

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.data import row_hash

FLOOR_ROWS = 5
"""Rows that `sample_with_floor` takes of each source, if the source has that many."""

Ids = npt.NDArray[np.int64]


def sample_with_cap(sources: npt.NDArray[np.integer], size: int, seed: int = 0) -> Ids:
    """Choose at most `size` rows, with at least one row per source while there is room. NumPy's generator draws them.

    Args:
        sources: source code of each row, int (n,).
        size: rows of the sample. If there are no more than that, all rows are taken.
        seed: the same seed gives the same sample of the same rows in the same order.

    Returns:
        Positions in `sources`, ascending, int64 (m,).
    """
    if len(sources) <= size:
        return np.arange(len(sources))
    codes, stratum, counts = _strata(sources)
    quota = _quota_with_cap(counts, size)
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero(stratum == code), quota[code], replace=False)  # in the order of the codes
        for code in range(len(codes))
    ]
    return np.sort(np.concatenate(chosen))


def sample_with_floor(sources: npt.NDArray[np.integer], rows: Ids, size: int, seed: int = 0) -> Ids:
    """Choose about `size` rows, with at least FLOOR_ROWS of each source: those with the smallest hash of their source.

    Args:
        sources: source code of each row, int (n,).
        rows: row number in the data set of each row, int64 (n,). Its hash decides, so the sample is the same on every
            machine and in any order of rows.
        size: rows of the sample; it may be a little larger. If there are no more than that, all rows are taken.
        seed: the same seed gives the same sample.

    Returns:
        Positions in `sources`, ascending, int64 (m,).
    """
    if len(sources) <= size:
        return np.arange(len(sources))
    _, stratum, counts = _strata(sources)
    return _smallest_hashes(stratum, counts, _quota_with_floor(counts, size), row_hash(seed, rows))


def sample_rows_with_text(merged: Merged, size: int, seed: int = 0) -> Ids:
    """Positions in `merged.rows` of about `size` rows with a text, ascending, int64 (m,).

    Each source has its share, and at least FLOOR_ROWS rows. The sample is the same on every machine.
    """
    with_text = np.flatnonzero(merged.has_text)
    sources, rows = (merged.rows[name].to_numpy()[with_text] for name in ("source", "row"))
    return with_text[sample_with_floor(sources, rows, size, seed)]


def _strata(sources: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.integer], Ids, Ids]:
    """Return the distinct source codes, ascending; the position of each row's code among them; and rows per code."""
    return np.unique(sources, return_inverse=True, return_counts=True)


def _quota_with_floor(counts: Ids, size: int) -> Ids:
    """Rows to take of each source: its share, rounded, at least FLOOR_ROWS, at most all. Sums to about `size`."""
    share = np.rint(counts * (size / counts.sum())).astype(np.int64)
    quota: Ids = np.minimum(np.maximum(share, FLOOR_ROWS), counts)
    return quota


def _quota_with_cap(counts: Ids, size: int) -> Ids:
    """Rows to take of each source: its share, and at least one while there is room. Sums to `size` exactly."""
    share = counts * (size / counts.sum())
    # Start from the share rounded down, but one row for each source.
    quota: Ids = np.maximum(share.astype(np.int64), 1)
    # Too few: one more row for the sources that rounding cost most.
    while (missing := size - int(quota.sum())) > 0:
        not_full = np.flatnonzero(quota < counts)
        quota[not_full[np.argsort(quota[not_full] - share[not_full], kind="stable")[:missing]]] += 1
    # Too many, because small sources were raised to one row.
    while (excess := int(quota.sum()) - size) > 0:
        # Take the excess from the largest quotas. If every quota is one row, drop the smallest sources.
        has_spare = quota.max() > 1
        order = np.argsort(-quota, kind="stable") if has_spare else np.argsort(counts, kind="stable")
        quota[order[quota[order] > has_spare][:excess]] -= 1
    return quota


def _smallest_hashes(stratum: Ids, counts: Ids, quota: Ids, hashes: npt.NDArray[np.uint64]) -> Ids:
    """Positions of each source's `quota` rows with the smallest hashes, ascending."""
    # Sort by source, then by hash.
    order = np.lexsort((hashes, stratum))
    # Number the rows of each source from 0.
    first_of_source = np.concatenate([np.zeros(1, np.int64), counts.cumsum()[:-1]])
    rank = np.arange(len(stratum)) - first_of_source[stratum[order]]
    # Keep the first ones of each source.
    chosen: Ids = np.sort(order[rank < quota[stratum[order]]])
    return chosen
