"""Chooses rows: the first N of each source, or N at random. The same rows on every machine and in every version."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl

PRUNE_ROWS = 100_000
"""Collect at least this many candidates before dropping those that cannot be chosen."""


def row_hash(seed: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of (seed, row), uint64 (n,): the finalizer of SplitMix64 over both.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Any integer
    may be the seed; it is taken modulo 2**64.
    """
    return _mix(_mix(np.array([seed % 2**64], np.uint64)) + rows.astype(np.uint64))


def row_hashes(seeds: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """`row_hash` of the rows with each of the seeds, uint64 (seeds, rows)."""
    return _mix(_mix(seeds)[:, None] + rows.astype(np.uint64))


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample_rows(sources: Iterable[pl.DataFrame], size: int, seed: int | None) -> npt.NDArray[np.int64]:
    """Choose up to `size` rows of each source.

    Args:
        sources: frames of (row, dataset_source) that together are the data set, in order.
        size: rows per source.
        seed: None to choose the first rows; otherwise the rows with the smallest `row_hash` are chosen.

    Returns:
        The chosen rows, ascending, int64 (n,). Memory grows with the chosen rows, not with the data set.
    """
    empty = pl.DataFrame(schema={"row": pl.Int64, "dataset_source": pl.String, "rank": pl.UInt64})
    chosen, pending, waiting = empty, [empty], 0
    for frame in sources:
        rows = frame["row"].to_numpy()
        rank = rows.astype(np.uint64) if seed is None else row_hash(seed, rows)
        pending.append(frame.with_columns(pl.Series("rank", rank)))
        waiting += frame.height
        if waiting > max(PRUNE_ROWS, chosen.height):  # then each row is ranked only a few times
            chosen, pending, waiting = _smallest(chosen, pending, size), [empty], 0
    return _smallest(chosen, pending, size)["row"].sort().to_numpy()


def _smallest(chosen: pl.DataFrame, pending: list[pl.DataFrame], size: int) -> pl.DataFrame:
    """The `size` rows of each source with the smallest (rank, row)."""
    candidates = pl.concat([chosen, *pending])
    order = pl.struct("rank", "row").rank("ordinal").over("dataset_source")
    return candidates.filter(order <= size)
