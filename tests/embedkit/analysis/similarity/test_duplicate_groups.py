"""Groups at several thresholds equal those of a naive union-find over all pairs."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates import (
    DuplicateOptions,
    GroupCollector,
    SearchOptions,
    Thresholds,
    find_duplicates,
    search_pairs,
    source_pairs,
    thresholds_from,
    tile_product,
)
from embedkit.analysis.similarity.duplicates import groups as groups_module
from embedkit.analysis.similarity.duplicates import search as search_module
from embedkit.analysis.similarity.duplicates.search import SampledPairs
from embedkit.analysis.similarity.duplicates.tile_product import TorchTileProduct
from tests.support.merged_runs import cosines_between, in_memory, merged_of

LEVELS = (0.8, 0.95, 0.99, 1.0)
CELLS = SearchOptions(exact_rows=0, cells=4, probes=9, tile_rows=29)
"""Every row visits every cell."""


def clusters(seed: int, rows: int, dim: int = 12) -> np.ndarray:
    """Groups of several widths, copies, chains, rows without a text, of any norm."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(rows // 4, 1), dim))
    width = rng.choice([0, 0.02, 0.1, 0.3], (rows, 1))
    vectors = centres[rng.integers(0, len(centres), rows)] + width * rng.standard_normal((rows, dim))
    for at in range(1, rows // 5):
        vectors[at] = vectors[at - 1] + 0.12 * rng.standard_normal(dim)
    vectors *= rng.choice([0.5, 1, 4], (rows, 1))
    vectors[rng.random(rows) < 0.05] = 0
    return vectors.astype(np.float32)


def naive_labels(vectors: np.ndarray, threshold: float, sources: Sequence[str] | None = None) -> list[int]:
    """The lowest row of each row's group: one union per near pair."""
    cosines = cosines_between(vectors, vectors).clip(-1, 1)
    lowest = list(range(len(vectors)))
    for a, b in combinations(range(len(vectors)), 2):
        if cosines[a, b] >= threshold and (sources is None or sources[a] != sources[b]):
            old, new = sorted((lowest[a], lowest[b]), reverse=True)
            lowest = [new if label == old else label for label in lowest]
    return lowest


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    """What `in_memory` replaces the rows of."""
    return merged_of(tmp_path_factory.mktemp("base"), np.eye(2, dtype=np.float32))


def collected(merged: Merged, search: SearchOptions | None = None, across_sources: bool = False) -> GroupCollector:
    thresholds = Thresholds(merged, LEVELS, across_sources)
    found = GroupCollector(merged, thresholds, forest_at=0.95)
    search_pairs(merged, search or SearchOptions(tile_rows=31), thresholds, found, found)
    return found


# Of copies, a float64 cosine may be a bit below 1, so that the naive reference leaves out the highest level.
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 70),
    batch=st.sampled_from([1, 7, 1 << 18]),
    waiting=st.sampled_from([1, 40, 1 << 16]),
    many=st.sampled_from([0, 20, 1 << 16]),
)
def test_groups_at_all_levels_are_those_of_a_union_find(
    base: Merged, seed: int, rows: int, batch: int, waiting: int, many: int
) -> None:
    vectors = clusters(seed, rows)
    sources = [str(i % 3) for i in range(rows)]
    merged = in_memory(base, vectors, sources)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups_module, "WAITING_PAIRS", waiting)
        patch.setattr(groups_module, "FIRST_PAIRS", min(batch, groups_module.FIRST_PAIRS))
        patch.setattr(groups_module, "BATCH_PAIRS", batch)
        patch.setattr(tile_product, "MANY_PAIRS", many)
        for across, of in ((False, None), (True, sources)):
            found = collected(merged, across_sources=across)
            for level in LEVELS[:3]:
                assert found.labels(level).tolist() == naive_labels(vectors, level, of)


@pytest.mark.parametrize("many", [0, 1 << 16])
@pytest.mark.parametrize("way", ["torch", "cells"])
def test_other_ways_of_searching_give_the_same_groups(
    way: str, many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clusters(3, 150)
    monkeypatch.setattr(tile_product, "MANY_PAIRS", many)
    if way == "torch":
        monkeypatch.setattr(search_module, "choose_tile_product", lambda: TorchTileProduct("cpu"))
    found = collected(merged_of(tmp_path, vectors), CELLS if way == "cells" else None)
    for level in LEVELS[:3]:
        assert found.labels(level).tolist() == naive_labels(vectors, level)


def test_the_forest_joins_each_group_with_near_pairs(tmp_path: Path) -> None:
    vectors = clusters(5, 200)
    found = collected(merged_of(tmp_path, vectors))
    one, two = found.forest(0.95)
    assert (cosines_between(vectors, vectors)[one, two] >= 0.95).all()
    labels = naive_labels(vectors, 0.95)
    assert len(one) == len(vectors) - len(set(labels))
    reached = list(range(len(vectors)))
    for a, b in zip(one.tolist(), two.tolist(), strict=True):
        old, new = sorted((reached[a], reached[b]), reverse=True)
        reached = [new if label == old else label for label in reached]
    assert reached == labels


def test_levels_count_planted_groups(tmp_path: Path) -> None:
    """Three copies, a chain of four whose steps are 0.96, and two rows at 0.9; the other rows are apart."""
    vectors = np.eye(16, dtype=np.float32)
    vectors[[1, 2]] = vectors[0]
    angle = np.arccos(0.965)
    for step in range(1, 4):
        vectors[4 + step] = 0
        vectors[4 + step, [4, 5]] = np.cos(step * angle), np.sin(step * angle)
    vectors[9, 8], vectors[9, 9] = 0.9001, np.sqrt(1 - 0.9001**2)
    vectors[15] = 0
    found = find_duplicates(merged_of(tmp_path, vectors), DuplicateOptions(0.9))
    assert found.levels["threshold"].to_list() == [0.9, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999]
    assert found.levels.rows()[0] == (0.9, 3, 9, 4, 10, None, 0)
    assert found.levels.rows()[2] == (0.96, 2, 7, 4, 11, None, 0)
    assert found.levels.rows()[3] == (0.97, 1, 3, 3, 14, None, 0)


def test_recall_is_measured_at_each_threshold(tmp_path: Path) -> None:
    vectors = clusters(1, 300)
    merged = merged_of(tmp_path, vectors)
    cosines = cosines_between(vectors, vectors)
    cells = {"exact_rows": 0, "cells": 100, "probes": 1, "sample": 300}
    found = find_duplicates(merged, DuplicateOptions(0.95, **cells))
    assert found.levels["sampled_pairs"].to_list() == [
        int((np.triu(cosines, 1) >= threshold).sum()) for threshold in found.levels["threshold"]
    ]
    assert found.total == round(found.recall * found.sampled_pairs)
    thresholds = Thresholds(merged, found.levels["threshold"])
    groups = GroupCollector(merged, thresholds)
    search_pairs(merged, SearchOptions(**cells), thresholds, groups, groups)
    for threshold, recall, pairs in found.levels["threshold", "recall", "sampled_pairs"].iter_rows():
        labels = groups.labels(threshold)
        a, b = np.nonzero(np.triu(cosines, 1) >= threshold)
        assert recall == (pytest.approx((labels[a] == labels[b]).sum() / len(a)) if pairs else None)
    assert found.levels["recall"].min() < 1


def test_a_template_is_one_group_though_its_pairs_are_missed(tmp_path: Path) -> None:
    vectors = (1 + 0.02 * np.random.default_rng(0).standard_normal((300, 12))).astype(np.float32)
    found = find_duplicates(
        merged_of(tmp_path, vectors), DuplicateOptions(0.95, exact_rows=0, cells=40, probes=3, sample=300)
    )
    assert found.recall < 0.9
    assert found.levels["recall"][0] == 1
    assert found.levels["largest_group"][0] == 300


def test_joined_pairs_are_left_out_unless_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one template: few pairs reach the collector, and all pairs of the sampled rows are counted."""
    rng = np.random.default_rng(0)
    vectors = (1 + 0.02 * rng.standard_normal((120, 12))).astype(np.float32)
    merged = merged_of(tmp_path, vectors)
    exact = int((cosines_between(vectors, vectors) >= 0.95).sum() - 120) // 2
    monkeypatch.setattr(groups_module, "WAITING_PAIRS", 1)
    given = {}
    for many in (0, 1 << 16):
        monkeypatch.setattr(tile_product, "MANY_PAIRS", many)
        thresholds = Thresholds(merged, LEVELS)
        found = GroupCollector(merged, thresholds)
        pairs: list[int] = []
        add = found.add
        monkeypatch.setattr(
            found, "add", lambda a, b, scores, add=add, pairs=pairs: (pairs.append(len(a)), add(a, b, scores))
        )
        search = search_pairs(merged, replace(CELLS, sample=120), thresholds, found, found)
        assert search.sampled[0.95] == SampledPairs(exact, found=exact, grouped=exact)
        one_sampled = search_pairs(merged, replace(CELLS, sample=1), thresholds, found, found)
        assert one_sampled.recall_at(0.95) == 1
        given[many] = pairs
    assert sum(given[0]) < sum(given[1 << 16])


def test_a_subset_of_sources_has_positions_of_its_own(tmp_path: Path) -> None:
    vectors = clusters(2, 90)
    sources = ["ab"[i % 2] for i in range(90)]
    found = collected(merged_of(tmp_path, vectors, sources, only=["b"]))
    assert found.labels(0.95).tolist() == naive_labels(vectors[1::2], 0.95)


def test_runs_of_no_one_and_equal_rows(tmp_path: Path) -> None:
    zeros = np.zeros((3, 4), np.float32)
    assert collected(merged_of(tmp_path / "a", zeros)).levels()["groups"].to_list() == [0] * 4
    same = np.tile(np.float32([[1, 2, 3, 4]]), (50, 1))
    levels = collected(merged_of(tmp_path / "b", same)).levels()
    assert levels["rows_in_groups"].to_list() == [50] * 4
    assert levels["rows_left"].to_list() == [1] * 4


def test_thresholds_begin_at_that_of_the_search() -> None:
    assert thresholds_from(0.97) == (0.97, 0.98, 0.99, 0.995, 0.999)
    assert thresholds_from(0.94, (0.985,)) == (0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)
    assert thresholds_from(1) == (1,)


@pytest.mark.slow
def test_pairs_of_12_000_sources_take_little_memory(base: Merged) -> None:
    """A million pairs among 12,000 sources, each of another pair of sources. One count per pair took 1.25 GiB."""
    sources, each = 12_000, 84
    # 84 rows a group: rows i and j of a group are of different sources, and no two groups share a pair of sources.
    vectors = np.repeat(np.eye(sources // each + 1, dtype=np.float32), each, axis=0)[:sources]
    names = [f"source {i:05d}" for i in range(sources)]
    large = in_memory(base, vectors, names)
    tracemalloc.start()
    found = find_duplicates(large, DuplicateOptions(0.95, max_pairs=1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    groups = [min(each, sources - first) for first in range(0, sources, each)]
    assert found.by_source.height == found.total == sum(size * (size - 1) // 2 for size in groups)
    assert found.levels["groups"][0] == len(groups)
    assert peak < 1 << 30


@pytest.mark.parametrize("sparse", [3, 1 << 20])
@pytest.mark.parametrize("count", [5, 10_000])
def test_pairs_of_sources_are_counted_sparse_or_dense(sparse: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_pairs, "SPARSE", sparse)
    monkeypatch.setattr(source_pairs, "WAITING", 50)
    monkeypatch.setattr(source_pairs, "BLOCK", 64)
    rng = np.random.default_rng(0)
    one, two = (rng.integers(0, 40, 900) ** 2 // 40 for _ in range(2))
    found = source_pairs.SourcePairs(40)
    for start in range(0, 900, 30):
        found.add(one[start : start + 30], two[start : start + 30])
    expected: dict[tuple[int, int], int] = {}
    for a, b in zip(one.tolist(), two.tolist(), strict=True):
        pair = (min(a, b), max(a, b))
        expected[pair] = expected.get(pair, 0) + 1
    low, high, counts = (part.tolist() for part in found.most(count))
    assert list(zip(low, high, strict=True)) == sorted(zip(low, high, strict=True))
    assert all(expected[a, b] == times for a, b, times in zip(low, high, counts, strict=True))
    assert sorted(counts) == sorted(expected.values())[-count:]
    assert found.total == 900


@pytest.mark.slow
def test_a_template_of_12_000_sources_takes_under_a_gibibyte() -> None:
    """All 72 million pairs of sources have a pair of rows."""
    found = source_pairs.SourcePairs(12_000)
    tracemalloc.start()
    for code in range(12_000):
        found.add(np.full(code + 1, code), np.arange(code + 1))
    low, high, counts = found.most(1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.total == 12_000 * 12_001 // 2
    assert (len(low), high.max(), counts.max()) == (1_000_000, 1413, 1)
    assert peak < 1 << 30
