"""Stratified samples: each function chooses the same rows as the rule that it replaced."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.merged import Merged
from embedkit.analysis.stratified_sample import FLOOR_ROWS, sample_rows_with_text, sample_with_cap, sample_with_floor
from embedkit.data.sampling import row_hash
from tests.support.merged_runs import merged_of

Ids = npt.NDArray[np.int64]


def old_rule_with_floor(sources: Ids, rows: Ids, size: int, seed: int) -> Ids:
    """The rule of the UMAP and neighbour samples, as it was: at least five rows per source, by hash."""
    if len(sources) <= size:
        return np.arange(len(sources))
    counts = np.bincount(sources)
    take = np.minimum(np.maximum(np.rint(counts * (size / len(sources))).astype(np.int64), 5), counts)
    order = np.lexsort((row_hash(seed, rows), sources))
    starts = np.concatenate([np.zeros(1, np.int64), counts.cumsum()[:-1]])
    rank = np.arange(len(sources)) - starts[sources[order]]
    return np.sort(order[rank < take[sources[order]]])


def old_rule_with_cap(sources: Ids, most: int, seed: int) -> Ids:
    """The rule of the page's points and texts, as it was: the share, and at least one row while there is room."""
    if len(sources) <= most:
        return np.arange(len(sources))
    codes, counts = np.unique(sources, return_counts=True)
    share = counts * (most / len(sources))
    quota = np.maximum(share.astype(np.int64), 1)
    while (left := most - int(quota.sum())) > 0:
        open_ = np.flatnonzero(quota < counts)
        quota[open_[np.argsort(quota[open_] - share[open_], kind="stable")[:left]]] += 1
    while (over := int(quota.sum()) - most) > 0:
        payers = np.argsort(-quota, kind="stable") if quota.max() > 1 else np.argsort(counts, kind="stable")
        quota[payers[quota[payers] > (quota.max() > 1)][:over]] -= 1
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero(sources == code), count, replace=False)
        for code, count in zip(codes, quota, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


@st.composite
def codes_of_rows(draw: st.DrawFn) -> Ids:
    """Sources of very different sizes, some codes without rows, in any order."""
    sizes = draw(st.lists(st.one_of(st.integers(0, 12), st.integers(0, 400)), min_size=1, max_size=30))
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(codes).astype(np.int64)


@settings(max_examples=100, deadline=None)
@given(sources=codes_of_rows(), size=st.integers(0, 600), seed=st.integers(0, 2**32))
def test_both_old_rules_choose_the_same_rows(sources: Ids, size: int, seed: int) -> None:
    rows = np.random.default_rng(1).permutation(10 * len(sources))[: len(sources)].astype(np.int64)
    floor = sample_with_floor(sources, rows, size, seed)
    assert floor.tolist() == old_rule_with_floor(sources, rows, size, seed).tolist()
    cap = sample_with_cap(sources, size, seed)
    assert cap.tolist() == old_rule_with_cap(sources, size, seed).tolist()


def test_cap_gives_each_source_its_share_and_never_more() -> None:
    sources = np.repeat([0, 1, 2], [9000, 900, 3])
    chosen = sample_with_cap(sources, 1000, seed=4)
    counts = np.bincount(sources[chosen])
    assert counts.sum() == 1000
    assert counts[0] == pytest.approx(909, abs=2)
    assert counts[2] == 1
    assert np.array_equal(chosen, sample_with_cap(sources, 1000, seed=4))
    assert not np.array_equal(chosen, sample_with_cap(sources, 1000, seed=5))
    assert len(sample_with_cap(np.arange(500), 40)) == 40
    assert len(sample_with_cap(sources, 10**6)) == len(sources)


def test_floor_keeps_small_sources_whatever_the_size() -> None:
    sources = np.repeat([0, 1, 2], [9000, 900, 3])
    chosen = sample_with_floor(sources, np.arange(len(sources)), 20)
    assert np.bincount(sources[chosen]).tolist() == [18, FLOOR_ROWS, 3]


SOURCES = ["big"] * 400 + ["middle"] * 150 + ["small"] * 8 + ["tiny"] * 2


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    vectors = np.random.default_rng(1).standard_normal((560, 20)).astype(np.float32)
    vectors[3] = 0
    return merged_of(tmp_path_factory.mktemp("clusters"), vectors, SOURCES)


def test_a_sample_of_a_run_has_no_row_without_a_text(merged: Merged) -> None:
    at = sample_rows_with_text(merged, 100, seed=3)
    names = [SOURCES[i] for i in at]
    assert [names.count(name) for name in ("big", "middle", "small", "tiny")] == [71, 27, 5, 2]
    assert 3 not in at
    assert (np.diff(at) > 0).all()
    assert (at == sample_rows_with_text(merged, 100, seed=3)).all()
    assert (at != sample_rows_with_text(merged, 100, seed=4)).any()
    assert len(sample_rows_with_text(merged, 559)) == 559
