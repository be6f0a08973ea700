"""Equal shares of sources, and random rows, are those of naive loops, and the same for any order of rows."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data import row_hash
from embedkit.subset.random_order import equal_shares, sample_at_random

SOURCES = st.lists(st.integers(0, 4), max_size=40).map(lambda codes: np.array(codes, np.int32))


def water_filled(counts: list[int], k: int) -> list[int]:
    """Rows of each source, sorted: one row at a time to a source that has the fewest and is not empty."""
    quota = [0] * len(counts)
    for _ in range(min(k, sum(counts))):
        open_sources = [source for source, count in enumerate(counts) if quota[source] < count]
        quota[min(open_sources, key=lambda source: quota[source])] += 1
    return sorted(quota)


@given(SOURCES, st.integers(1, 50), st.integers(0, 3))
def test_shares_are_equal_or_whole(sources: np.ndarray, k: int, seed: int) -> None:
    hashes = row_hash(seed, np.arange(len(sources)))
    selected = equal_shares(sources, hashes, k)
    counts = Counter(sources.tolist())
    given_rows = Counter(sources[selected].tolist())
    assert len(set(selected.tolist())) == min(k, len(sources))
    assert sorted(given_rows[source] for source in counts) == water_filled(list(counts.values()), k)
    least = max(given_rows.values(), default=0)
    assert all(given_rows[source] in {count, least, least - 1} for source, count in counts.items())


@given(SOURCES, st.integers(1, 50))
def test_rows_of_a_source_are_those_with_the_smallest_hashes(sources: np.ndarray, k: int) -> None:
    hashes = row_hash(7, np.arange(len(sources)))
    selected = equal_shares(sources, hashes, k)
    for source in set(sources.tolist()):
        by_hash = sorted((int(hashes[at]), at) for at in np.flatnonzero(sources == source))
        of_source = [at for at in selected.tolist() if sources[at] == source]
        assert of_source == [at for _, at in by_hash[: len(of_source)]]


@given(SOURCES, st.integers(1, 50))
def test_the_first_rows_are_the_selection_of_fewer(sources: np.ndarray, k: int) -> None:
    hashes = row_hash(3, np.arange(len(sources)))
    assert equal_shares(sources, hashes, k).tolist() == equal_shares(sources, hashes, 99)[:k].tolist()


@given(st.integers(0, 30), st.integers(1, 40))
def test_random_rows_have_the_smallest_hashes(rows: int, k: int) -> None:
    hashes = row_hash(0, np.arange(rows))
    wanted = sorted(range(rows), key=lambda at: int(hashes[at]))[:k]
    assert sample_at_random(hashes, k).tolist() == wanted


def test_of_equal_hashes_the_lower_row_comes_first() -> None:
    hashes = np.array([5, 1, 5, 1], np.uint64)
    assert sample_at_random(hashes, 3).tolist() == [1, 3, 0]
    assert equal_shares(np.array([0, 0, 0, 0]), hashes, 3).tolist() == [1, 3, 0]
