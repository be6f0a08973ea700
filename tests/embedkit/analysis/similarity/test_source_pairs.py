"""Counts by pair of sources that are large, or change how they are stored."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.similarity.duplicates import source_pairs


@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=60),
    batch=st.integers(1, 20),
    sparse=st.integers(0, 30),
    large=st.integers(1, 40),
    block=st.integers(1, 30),
)
def test_counts_are_those_of_a_loop(
    pairs: list[tuple[int, int]], batch: int, sparse: int, large: int, block: int
) -> None:
    """Whenever counts become dense, and whenever they become large."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WAITING": batch, "SPARSE": sparse, "LARGE": large, "BLOCK": block}.items():
            patch.setattr(source_pairs, name, value)
        found = source_pairs.SourcePairs(6)
        for start in range(0, len(pairs), batch):
            one, two = zip(*pairs[start : start + batch], strict=True)
            found.add(np.array(one), np.array(two))
        low, high, counts = found.most(100)
    expected: dict[tuple[int, int], int] = {}
    for pair in pairs:
        key = (min(pair), max(pair))
        expected[key] = expected.get(key, 0) + 1
    assert dict(zip(zip(low.tolist(), high.tolist(), strict=True), counts.tolist(), strict=True)) == expected
    assert counts.dtype == np.int64


def test_a_count_may_exceed_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template of 2.3 million rows has 2.6 trillion pairs."""
    monkeypatch.setattr(source_pairs, "SPARSE", 0)
    found = source_pairs.SourcePairs(2)
    found.add(np.array([0, 1]), np.array([1, 1]))
    found.most(1)
    for _ in range(3):
        found._count_dense(np.array([1]), np.array([2**30 - 1]))
    low, high, counts = found.most(9)
    assert (low.tolist(), high.tolist(), counts.tolist()) == ([0, 1], [1, 1], [3 * (2**30 - 1) + 1, 1])
