"""Which rows stay: the rule equals a naive loop over all pairs, by both rules and in any order of preference."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates import GroupCollector, SearchOptions, Thresholds, search_pairs
from embedkit.analysis.similarity.duplicates.tile_product import NumpyTileProduct, TileProduct, TorchTileProduct
from embedkit.dedup.independent_set import Groups
from embedkit.dedup.one_per_group import paths_to
from embedkit.dedup.preference import ranks
from embedkit.errors import UsageError
from tests.embedkit.analysis.similarity.test_duplicate_groups import clusters, naive_labels
from tests.support.merged_runs import cosines_between, in_memory, merged_of

THRESHOLD = 0.95


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    """What `in_memory` replaces the rows of."""
    return merged_of(tmp_path_factory.mktemp("base"), np.eye(2, dtype=np.float32))


def near_matrix(vectors: np.ndarray, sources: list[str] | None = None) -> np.ndarray:
    """Whether two rows are near each other, by float64 cosines of all pairs."""
    near = cosines_between(vectors, vectors) >= THRESHOLD
    np.fill_diagonal(near, False)
    if sources is not None:
        near &= np.array(sources)[:, None] != np.array(sources)[None]
    return near


def naive_rule(near: np.ndarray, order: list[int]) -> list[int]:
    """Go through the rows in order; a row stays unless one that stays is near it."""
    stays: list[int] = []
    for row in order:
        if not any(near[row, other] for other in stays):
            stays.append(row)
    return sorted(stays)


def groups_of(
    merged: Merged,
    order: np.ndarray,
    across: bool = False,
    block_rows: int = 2048,
    product: TileProduct | None = None,
) -> tuple[GroupCollector, Groups]:
    thresholds = Thresholds(merged, (0.9, THRESHOLD), across)
    found = GroupCollector(merged, thresholds, forest_at=THRESHOLD)
    search_pairs(merged, SearchOptions(), thresholds, found, found)
    places = np.argsort(order)
    return found, Groups(merged, found.labels(THRESHOLD), places, THRESHOLD, across, block_rows, product)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(0, 80),
    block_rows=st.sampled_from([1, 3, 16, 2048]),
    across=st.booleans(),
)
def test_rows_stay_as_in_a_loop_over_all_pairs(
    base: Merged, seed: int, rows: int, block_rows: int, across: bool
) -> None:
    vectors = clusters(seed, rows)
    sources = [str(i % 3) for i in range(rows)]
    near = near_matrix(vectors, sources if across else None)
    order = np.random.default_rng(seed).permutation(rows)
    merged = in_memory(base, vectors, sources)
    _, groups = groups_of(merged, order, across, block_rows)
    stays = groups.independent_set()
    kept = naive_rule(near, order.tolist())
    assert np.flatnonzero(stays).tolist() == kept
    cosines = cosines_between(vectors, vectors)
    removed, pair, cosine = groups.nearest_kept(stays)
    assert removed.tolist() == sorted(set(range(rows)) - set(kept))
    for row, other, value in zip(removed.tolist(), pair.tolist(), cosine.tolist(), strict=True):
        assert near[row, other]
        assert stays[other]
        assert value == pytest.approx(max(cosines[row, k] for k in kept if near[row, k]), abs=1e-12)
        assert value == pytest.approx(cosines[row, other], abs=1e-12)


@pytest.mark.parametrize("product", [NumpyTileProduct(), TorchTileProduct("cpu")])
@pytest.mark.parametrize("block_rows", [7, 64])
def test_a_group_larger_than_all_blocks(base: Merged, product: TileProduct, block_rows: int) -> None:
    """400 rows around one direction, of which many are near each other and many are not."""
    rng = np.random.default_rng(0)
    vectors = (np.eye(1, 8) + 0.14 * rng.standard_normal((400, 8))).astype(np.float32)
    near = near_matrix(vectors)
    merged = in_memory(base, vectors, ["s"] * 400)
    order = rng.permutation(400)
    found, groups = groups_of(merged, order, block_rows=block_rows, product=product)
    sizes = np.bincount(found.labels(THRESHOLD))
    assert sizes.max() > 300
    stays = groups.independent_set()
    assert np.flatnonzero(stays).tolist() == naive_rule(near, order.tolist())
    assert 10 < stays.sum() < 390


def test_small_groups_share_a_batch_and_large_ones_do_not(base: Merged) -> None:
    sizes = [2, 3, 9, 2, 2, 1, 4]
    vectors = np.repeat(np.eye(len(sizes), dtype=np.float32), sizes, axis=0)
    merged = in_memory(base, vectors, ["s"] * len(vectors))
    _, groups = groups_of(merged, np.arange(len(vectors)), block_rows=6)
    assert [len(batch) for batch in groups.batches()] == [5, 9, 4, 4]
    assert np.flatnonzero(groups.independent_set()).tolist() == np.cumsum([0, *sizes[:-1]]).tolist()


def test_equal_cosines_give_the_preferred_pair(base: Merged) -> None:
    """Row 2 is between rows 0 and 1, which are not near each other."""
    vectors = np.float32([[1, 0.28], [1, -0.28], [1, 0]])
    merged = in_memory(base, vectors, ["s"] * 3)
    for order in ([0, 1, 2], [1, 0, 2]):
        _, groups = groups_of(merged, np.array(order))
        stays = groups.independent_set()
        assert stays.tolist() == [True, True, False]
        removed, pair, _ = groups.nearest_kept(stays)
        assert (removed.tolist(), pair.tolist()) == ([2], order[:1])


def chain(rows: int) -> np.ndarray:
    """Rows each of which is near the next one, and no other."""
    angles = np.arange(rows) * np.arccos(0.96)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_in_a_chain_every_second_row_stays_or_one(base: Merged) -> None:
    merged = in_memory(base, chain(7), ["s"] * 7)
    order = np.array([3, 0, 1, 2, 4, 5, 6])
    found, groups = groups_of(merged, order)
    assert np.flatnonzero(groups.independent_set()).tolist() == [0, 3, 5]  # 1, 2, 4 and 6 are near one that stays
    towards = paths_to(groups.best, found.forest(THRESHOLD), 7)
    assert groups.best.tolist() == [3]
    assert towards.tolist() == [1, 2, 3, -1, 3, 4, 5]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(0, 80))
def test_each_way_to_the_kept_row_has_near_steps(base: Merged, seed: int, rows: int) -> None:
    vectors = clusters(seed, rows)
    near = near_matrix(vectors)
    merged = in_memory(base, vectors, ["s"] * rows)
    order = np.random.default_rng(seed).permutation(rows)
    found, groups = groups_of(merged, order)
    towards = paths_to(groups.best, found.forest(THRESHOLD), rows)
    labels = naive_labels(vectors, THRESHOLD)
    preferred = {label: next(row for row in order.tolist() if labels[row] == label) for label in set(labels)}
    for row in range(rows):
        if labels.count(labels[row]) == 1:
            continue
        way = [row]
        while way[-1] != preferred[labels[row]]:
            way.append(int(towards[way[-1]]))
            assert len(way) <= rows
        assert all(near[one, two] for one, two in pairwise(way))


def test_rows_are_preferred_by_length_place_or_source(base: Merged) -> None:
    sources = ["b", "a", "c", "b", "a", "c", "b"]
    merged = in_memory(base, np.eye(7, dtype=np.float32), sources)
    tokens = merged.rows["num_tokens"].to_list()
    assert tokens == [1, 6, 4, 2, 7, 5, 3]
    assert np.argsort(ranks(merged, "first")).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert np.argsort(ranks(merged, "longest")).tolist() == [4, 1, 5, 2, 6, 3, 0]
    assert np.argsort(ranks(merged, "source:c,a")).tolist() == [5, 2, 4, 1, 6, 3, 0]
    merged = in_memory(base, np.ones((9, 2), np.float32), ["s"] * 9)
    assert merged.rows["num_tokens"].to_list()[7:] == [1, 6]  # as those of rows 0 and 1
    assert np.argsort(ranks(merged, "longest")).tolist() == [4, 1, 8, 5, 2, 6, 3, 0, 7]


def test_an_unknown_source_or_rule_is_refused(base: Merged) -> None:
    merged = in_memory(base, np.eye(3, dtype=np.float32), ["chess", "math", "maths"])
    with pytest.raises(UsageError, match=r"no source is named 'mth'; there are 3, such as math, maths"):
        ranks(merged, "source:chess,mth")
    with pytest.raises(UsageError, match="type longest, first"):
        ranks(merged, "shortest")
