"""Sampling gives the same rows on every machine, however the data set is cut into frames."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.data.sampling import row_hash, sample_rows


def splitmix64(x: int) -> int:
    """The finalizer with plain integers (Steele, Lea, Flood 2014)."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


@given(st.integers(-(2**70), 2**70), st.lists(st.integers(0, 2**62), min_size=1, max_size=5))
def test_row_hash_is_splitmix64(seed: int, rows: list[int]) -> None:
    expected = [splitmix64((splitmix64(seed % 2**64) + row) % 2**64) for row in rows]
    assert row_hash(seed, np.array(rows, np.int64)).tolist() == expected


def test_row_hash_never_changes() -> None:
    """A changed value here is a changed sample for everyone."""
    assert row_hash(0, np.arange(2)).tolist() == [splitmix64(splitmix64(0)), splitmix64(splitmix64(0) + 1)]
    assert int(row_hash(42, np.array([7]))[0]) == 18315876358090669558


@given(
    st.lists(st.sampled_from(["a", "b", ""]), max_size=60),
    st.integers(1, 8),
    st.none() | st.integers(0, 3),
    st.integers(1, 70),
)
@settings(max_examples=150, deadline=None)
def test_sample_equals_a_naive_one(sources: list[str], size: int, seed: int | None, cut: int) -> None:
    expected: list[int] = []
    for source in set(sources):
        rows = [i for i, s in enumerate(sources) if s == source]
        if seed is not None:
            rows.sort(key=lambda row: splitmix64((splitmix64(seed) + row) % 2**64))
        expected += rows[:size]
    schema = {"row": pl.Int64, "dataset_source": pl.String}
    frame = pl.DataFrame({"row": range(len(sources)), "dataset_source": sources}, schema=schema)
    frames = [frame.slice(i, cut) for i in range(0, len(sources), cut)]
    assert sample_rows(frames, size, seed).tolist() == sorted(expected)
