"""Near-duplicates equal those of a naive comparison, within and across sources."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates import DuplicateOptions, Duplicates, find_duplicates, source_pairs
from embedkit.analysis.similarity.duplicates import pairs as pairs_module
from embedkit.analysis.similarity.duplicates import search as search_module
from embedkit.analysis.similarity.duplicates.cells import nearest_cells
from embedkit.analysis.similarity.duplicates.pairs import PairCollector
from embedkit.analysis.similarity.duplicates.tile_product import TorchTileProduct
from embedkit.errors import UsageError
from tests.support.merged_runs import cosines_between, merged_of

SOURCES = [["math", "code", "chat/é"][i * i % 7 % 3] for i in range(600)]


def planted(seed: int = 0, rows: int = 600, dim: int = 32) -> np.ndarray:
    """Noise with groups of near-duplicates of one to nine rows, of any norm, and a few empty rows."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((rows // 3, dim))
    vectors = centres[rng.integers(0, len(centres), rows)] + 0.15 * rng.standard_normal((rows, dim))
    vectors[rng.integers(0, rows, 40)] = vectors[5]
    vectors *= rng.uniform(0.1, 9, (rows, 1))
    vectors[rng.integers(0, rows, 6)] = 0
    return vectors.astype(np.float32)


def naive(vectors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cosines = np.nan_to_num(cosines_between(vectors, vectors), nan=-2)
    a, b = np.nonzero(np.triu(cosines >= threshold, 1))
    return a, b, cosines[a, b]


def pairs_of(found: Duplicates) -> set[tuple[int, int]]:
    return set(zip(found.pairs["id_a"].to_list(), found.pairs["id_b"].to_list(), strict=True))


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    return merged_of(tmp_path_factory.mktemp("planted"), planted(), SOURCES)


@pytest.fixture(params=["numpy", "torch"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tiles multiplied by NumPy, or by the code for GPUs, here on a CPU."""
    if request.param == "torch":
        monkeypatch.setattr(search_module, "choose_tile_product", lambda: TorchTileProduct("cpu"))
    return str(request.param)


def test_progress_comes_with_the_comparisons(merged: Merged, arithmetic: str) -> None:
    """In many steps, even where all rows fit into one stripe, and all rows in the end."""
    steps: list[int] = []
    find_duplicates(merged, DuplicateOptions(0.95, tile_rows=37), steps.append)
    rows = int(merged.has_text.sum())
    assert sum(steps) == rows
    assert min(steps) >= 0
    assert max(steps) < rows / 5


@pytest.mark.parametrize("tile_rows", [37, 64, 4096])
@pytest.mark.parametrize("threshold", [0.8, 0.95, 0.9999])
def test_all_pairs_are_found_and_counted_by_sources(
    merged: Merged, threshold: float, tile_rows: int, arithmetic: str
) -> None:
    a, b, cosines = naive(planted(), threshold)
    found = find_duplicates(merged, DuplicateOptions(threshold, tile_rows=tile_rows))
    assert found.method == "exact"
    assert len(a) > 300
    by_ids = found.pairs.sort("id_a", "id_b")
    assert (by_ids["id_a"] == a).all()
    assert (by_ids["id_b"] == b).all()
    assert np.allclose(by_ids["cosine"], cosines, rtol=0, atol=1e-12)
    assert by_ids.sort("cosine", descending=True, maintain_order=True).equals(found.pairs)
    assert (found.total, found.is_capped, found.rows) == (len(a), False, int(merged.has_text.sum()))
    counts: dict[tuple[str, ...], int] = {}
    for i, j in zip(a, b, strict=True):
        pair = tuple(sorted((SOURCES[i], SOURCES[j])))
        counts[pair] = counts.get(pair, 0) + 1
    assert {row[:2]: row[2] for row in found.by_source.iter_rows()} == counts
    assert by_ids["source_a"].to_list() == [SOURCES[i] for i in a]


@pytest.mark.parametrize("most", [0, 1, 50, 200])
def test_a_cap_keeps_the_nearest_pairs_and_counts_all(
    merged: Merged, most: int, arithmetic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find_duplicates(merged, DuplicateOptions(0.8))
    prune = PairCollector._prune
    add = PairCollector.add

    def add_and_prune(pairs: PairCollector, *arguments: np.ndarray) -> None:
        add(pairs, *arguments)
        prune(pairs)

    monkeypatch.setattr(PairCollector, "add", add_and_prune)
    found = find_duplicates(merged, DuplicateOptions(0.8, max_pairs=most, tile_rows=50))
    assert found.is_capped
    assert found.total == whole.total
    assert found.by_source.equals(whole.by_source)
    assert found.pairs.equals(whole.pairs.head(most))


def test_equal_rows_are_listed_by_id_and_few_are_compared(
    tmp_path: Path, arithmetic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the list is full of equal rows, no other pair can be listed: its cosine is not computed again."""
    vectors = np.random.default_rng(1).standard_normal((100, 32)).astype(np.float32)
    vectors[10:90] = vectors[10] * np.linspace(0.1, 9, 80, dtype=np.float32)[:, None]
    merged = merged_of(tmp_path, vectors, SOURCES[:100])
    compared: list[int] = []
    cosines_of = pairs_module.cosines_of
    monkeypatch.setattr(pairs_module, "cosines_of", lambda *of: (compared.append(len(of[1])), cosines_of(*of))[1])
    monkeypatch.setattr(pairs_module, "PRUNE_PAIRS", 50)
    found = find_duplicates(merged, DuplicateOptions(0.9, max_pairs=25, tile_rows=20))
    assert list(zip(found.pairs["id_a"], found.pairs["id_b"], strict=True)) == [(10, b) for b in range(11, 36)]
    assert set(found.pairs["cosine"]) == {1.0}
    assert found.total == 80 * 79 // 2
    assert int(found.by_source["pairs"].sum()) == found.total
    assert sum(compared) < 600


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), tile_rows=st.integers(1, 90))
def test_neither_tiles_nor_the_order_of_rows_change_the_pairs(
    seed: int, tile_rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vectors = planted(seed, 80)
    order = np.random.default_rng(seed).permutation(80)
    one = find_duplicates(merged_of(tmp_path_factory.mktemp("a"), vectors), DuplicateOptions(0.9, tile_rows=tile_rows))
    two = find_duplicates(merged_of(tmp_path_factory.mktemp("b"), vectors[order]), DuplicateOptions(0.9))
    assert np.array_equal(one.pairs["cosine"], two.pairs["cosine"])
    assert pairs_of(one) == {(min(order[a], order[b]), max(order[a], order[b])) for a, b in pairs_of(two)}


def test_the_approximate_search_reports_its_true_recall(merged: Merged) -> None:
    exact = pairs_of(find_duplicates(merged, DuplicateOptions(0.95)))
    found = find_duplicates(merged, DuplicateOptions(0.95, exact_rows=10, sample=600))
    assert (found.method, found.sampled_rows, found.sampled_pairs) == ("approximate", found.rows, len(exact))
    assert pairs_of(found) <= exact
    assert len(pairs_of(found)) == found.total  # none twice
    assert found.recall == pytest.approx(found.total / len(exact))
    assert found.recall > 0.99
    assert found.pairs.equals(find_duplicates(merged, DuplicateOptions(0.95, exact_rows=10, sample=7)).pairs)
    part = find_duplicates(merged, DuplicateOptions(0.95, exact_rows=10, sample=100))
    assert 0 < part.sampled_pairs < len(exact)


def test_a_coarse_search_misses_pairs_and_reports_them(merged: Merged) -> None:
    exact = pairs_of(find_duplicates(merged, DuplicateOptions(0.8)))
    found = find_duplicates(merged, DuplicateOptions(0.8, exact_rows=10, cells=300, probes=1, sample=600))
    assert found.recall == pytest.approx(len(pairs_of(found)) / len(exact))
    assert 0.05 < found.recall < 0.95
    every = find_duplicates(merged, DuplicateOptions(0.8, exact_rows=10, cells=4, probes=9, tile_rows=29))
    assert pairs_of(every) == exact
    assert every.recall == 1


def test_runs_with_no_pairs_no_rows_or_one_row(tmp_path: Path) -> None:
    lone = find_duplicates(merged_of(tmp_path / "a", np.eye(3, dtype=np.float32)), DuplicateOptions(0.5))
    assert (lone.total, lone.pairs.height, lone.by_source.height) == (0, 0, 0)
    assert lone.pairs.schema["source_a"] == pl.String
    vectors = np.zeros((3, 4), np.float32)
    assert find_duplicates(merged_of(tmp_path / "b", vectors), DuplicateOptions(0.5)).rows == 0
    vectors[1] = 1
    one = find_duplicates(merged_of(tmp_path / "c", vectors), DuplicateOptions(0.5, exact_rows=0))
    assert (one.total, one.recall) == (0, None)


def test_a_threshold_that_is_no_cosine_is_refused(merged: Merged) -> None:
    with pytest.raises(UsageError, match="at most 1"):
        find_duplicates(merged, DuplicateOptions(1.5))


def test_a_pair_that_meets_in_any_cell_is_found_once(merged: Merged) -> None:
    """A pair is found once if either row is compared in the other's cell."""
    exact = pairs_of(find_duplicates(merged, DuplicateOptions(0.4)))
    ids = merged.ids[merged.has_text]
    near = dict(zip(ids.tolist(), nearest_cells(merged, ids, 100, 2, 0).tolist(), strict=True))
    one_way = {(a, b) for a, b in exact if (near[a][0] in near[b]) != (near[b][0] in near[a])}
    met = {(a, b) for a, b in exact if near[a][0] in near[b] or near[b][0] in near[a]}
    assert len(one_way) > 50
    found = find_duplicates(merged, DuplicateOptions(0.4, exact_rows=10, cells=100, probes=2, tile_rows=31))
    assert pairs_of(found) == met
    assert found.total == len(met)


def test_memory_does_not_grow_with_the_square_of_sources(merged: Merged, monkeypatch: pytest.MonkeyPatch) -> None:
    """12,000 sources took 1.25 GiB for one count per pair of sources."""
    few = find_duplicates(merged, DuplicateOptions(0.8))
    names = (*merged.sources, *(f"source {i}" for i in range(12_000 - len(merged.sources))))
    monkeypatch.setattr(source_pairs, "WAITING", 100)
    tracemalloc.start()
    found = find_duplicates(replace(merged, sources=names), DuplicateOptions(0.8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20
    assert found.by_source.equals(few.by_source)
    assert found.total == few.total
