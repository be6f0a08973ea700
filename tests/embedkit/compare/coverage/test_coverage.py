"""Coverage equals a loop over all pairs; planted clusters; cells; odd data sets."""

import json
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.analysis.similarity.duplicates.tile_product import NumpyTileProduct, TorchTileProduct
from embedkit.compare.coverage import CoverageOptions, Covered, DataPair, find_coverage
from embedkit.compare.coverage import find as find_module
from embedkit.compare.coverage.find import coverage_rows
from embedkit.compare.coverage.radii import Radii
from embedkit.compare.coverage.search import search_all, search_cells
from embedkit.compare.coverage.summary import summarize
from embedkit.compare.coverage.text import as_text, lines
from embedkit.errors import UsageError
from tests.embedkit.compare.pairs import data_pair
from tests.support.merged_runs import cosines_between
from tests.support.planted import unit

CELLS = CoverageOptions(exact_pairs=10, exact_rows=10, cells=30, probes=2, tile_rows=37)


def clusters(seed: int, rows: int, dim: int = 16, which: tuple[int, ...] = (0, 1, 2, 3)) -> np.ndarray:
    """Rows in some of eight clusters, of any length, and a few empty rows."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(77).normal(size=(8, dim))
    vectors = centres[np.array(which)[np.arange(rows) % len(which)]] + 0.4 * rng.normal(size=(rows, dim))
    vectors *= rng.uniform(0.2, 5, (rows, 1))
    vectors[rng.integers(0, rows, 2)] = 0
    return vectors.astype(np.float32)


def with_text(vectors: np.ndarray) -> np.ndarray:
    return vectors[vectors.any(axis=1)]


def by_loops(a: np.ndarray, b: np.ndarray, k: int) -> tuple[list[bool], list[float]]:
    """Whether each row of b with a text is covered, and the cosine to its nearest row of a. Loops in float64."""
    a, b = with_text(a), with_text(b)
    within = cosines_between(a, a)
    radii = []
    for row in range(len(a)):
        others = sorted((within[row, other] for other in range(len(a)) if other != row), reverse=True)
        radii.append(others[min(k, len(others)) - 1] if others else 1.0)
    between = cosines_between(a, b)
    covered = [any(between[i, j] >= radii[i] - 1e-6 for i in range(len(a))) for j in range(len(b))]
    return covered, [max(between[:, j], default=float("nan")) for j in range(len(b))]


def assert_exact(found: Covered, a: np.ndarray, b: np.ndarray, k: int) -> None:
    covered, cosines = by_loops(a, b, k)
    assert found.is_covered.tolist() == covered
    assert found.cosines.tolist() == pytest.approx(cosines, abs=1e-6)
    assert found.positions.tolist() == np.flatnonzero(b.any(axis=1)).tolist()
    own = cosines_between(a[found.nearest], b[found.positions]).diagonal()
    assert found.cosines.tolist() == pytest.approx(own.tolist(), abs=1e-6)


@pytest.fixture(params=["numpy", "torch"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tiles multiplied by NumPy, or by the code for GPUs, here on a CPU."""
    if request.param == "torch":
        monkeypatch.setattr(find_module, "choose_tile_product", lambda: TorchTileProduct("cpu"))
        monkeypatch.setattr("embedkit.analysis.similarity.duplicates.tile_product.TOP_COLUMNS", 70)
    return str(request.param)


@pytest.mark.parametrize("tile_rows", [37, 4096])
@pytest.mark.parametrize("k", [1, 5, 500])
def test_coverage_is_that_of_loops(tmp_path: Path, k: int, tile_rows: int, arithmetic: str) -> None:
    a, b = clusters(1, 300), clusters(2, 90, which=(0, 2, 5, 6))
    found = find_coverage(data_pair(tmp_path, a, b), CoverageOptions(k, tile_rows=tile_rows))
    assert (found.method, found.radii.method, found.measured) == ("exact", "exact", None)
    assert_exact(found, a, b, k)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), rows=st.tuples(st.integers(3, 60), st.integers(3, 60)), k=st.integers(1, 7))
def test_any_rows(seed: int, rows: tuple[int, int], k: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    a, b = clusters(seed, rows[0]), clusters(seed + 1, rows[1], which=(1, 3, 4))
    b[0] = 3 * a[0]  # the same direction
    pair = data_pair(tmp_path_factory.mktemp("pair"), a, b)
    assert_exact(find_coverage(pair, CoverageOptions(k, tile_rows=13)), a, b, k)


@given(seed=st.integers(0, 2**32), rows=st.integers(1, 200), others=st.integers(1, 200))
def test_torch_finds_what_numpy_finds(seed: int, rows: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (unit(rng.normal(size=(count, 8))) for count in (rows, others))
    radii = rng.uniform(0, 1, others).astype(np.float32)
    torch = TorchTileProduct("cpu")
    one = NumpyTileProduct().inside(a, b, radii)
    other = torch.inside(torch.put(a), torch.put(b), radii)
    for numpy_found, torch_found in zip(one, other, strict=True):
        assert np.allclose(numpy_found, torch_found, atol=1e-6)


def test_planted_half_is_covered_and_a_new_cluster_is_far(tmp_path: Path) -> None:
    """B: 60 copies of rows of A, turned by a hair, and 20 rows of a cluster that A has not."""
    a = with_text(clusters(1, 400))
    copies = unit(a[:60]) + 1e-5 * np.random.default_rng(3).normal(size=(60, 16))
    new = with_text(clusters(5, 50, which=(7,)))[:20]
    sources = ["copied"] * 60 + ["new"] * 20
    found = find_coverage(data_pair(tmp_path, a, np.concatenate([copies, new]), sources))
    rows = coverage_rows(found)
    summary = summarize(found, rows, listed=30)
    by_source = {one.source: one for one in summary.sources}
    assert (by_source["copied"].covered, by_source["new"].covered) == (60, 0)
    assert (summary.covered, summary.share) == (60, pytest.approx(60 / 80))
    assert [one.source for one in summary.sources] == ["new", "copied"]
    assert {row.source for row in summary.far[:3]} == {"new"}
    assert [row.cosine for row in summary.far] == sorted(row.cosine for row in summary.far)
    lowest = rows.sort("cosine")["id"][0]
    assert (summary.far[0].id, summary.far[0].covered) == (lowest, False)
    assert max(map(len, lines(summary))) <= 80


def test_all_cells_are_the_exact_search(tmp_path: Path) -> None:
    a, b = clusters(1, 300), clusters(2, 90, which=(0, 2, 5, 6))
    options = CoverageOptions(exact_pairs=10, exact_rows=10, cells=6, probes=6, tile_rows=37)
    found = find_coverage(data_pair(tmp_path, a, b), options)
    assert (found.method, found.radii.method) == ("approximate", "approximate")
    assert_exact(found, a, b, 5)
    assert found.measured is not None
    assert (found.measured.missed, found.measured.wrong, found.measured.rows) == (0, 0, len(found.positions))
    assert found.measured.cosine_error < 1e-6


def test_few_cells_report_their_true_errors(tmp_path: Path) -> None:
    a, b = clusters(1, 300), clusters(2, 200, which=(0, 1, 5, 6))
    found = find_coverage(data_pair(tmp_path, a, b), CELLS)
    covered, cosines = by_loops(a, b, 5)
    measured = found.measured
    assert measured is not None
    is_exact = np.array(covered)
    assert (measured.found, measured.exact) == (int(found.is_covered.sum()), int(is_exact.sum()))
    assert measured.missed == int((is_exact & ~found.is_covered).sum())
    assert measured.wrong == int((found.is_covered & ~is_exact).sum())
    assert measured.wrong + measured.missed > 0  # the cells are coarse enough to err
    assert measured.cosine_error == pytest.approx(np.mean(np.array(cosines) - found.cosines), abs=1e-6)
    assert (found.cosines <= np.array(cosines) + 1e-6).all()
    assert "checked exactly" in "\n".join(lines(summarize(found, coverage_rows(found))))


def test_radii_found_by_cells_are_never_too_small(tmp_path: Path) -> None:
    a = clusters(1, 300)
    pair = data_pair(tmp_path, a, clusters(2, 9))
    exact = find_coverage(pair).radii.cosines
    approximate = find_coverage(pair, CELLS).radii.cosines
    assert (approximate <= exact + 1e-6).all()
    assert (approximate < exact - 1e-3).any()


def test_cells_find_no_more_than_all_rows(tmp_path: Path) -> None:
    """Given the same radii."""
    pair = data_pair(tmp_path, clusters(1, 300), clusters(2, 200))
    radii: Radii = find_coverage(pair).radii
    product = NumpyTileProduct()
    arguments = (pair.a, pair.b, radii.cosines, product, 50, lambda rows: None)
    whole, part = search_all(*arguments), search_cells(*arguments, cells=40, probes=2, seed=0)
    assert (part.cosines <= whole.cosines + 1e-6).all()
    assert (part.margins <= whole.margins + 1e-6).all()
    assert (part.margins < whole.margins - 1e-3).any()


@pytest.mark.parametrize("rows_a", [0, 1, 2, 5])
@pytest.mark.parametrize("rows_b", [0, 1, 3])
def test_few_rows(tmp_path: Path, rows_a: int, rows_b: int) -> None:
    rng = np.random.default_rng(0)
    a, b = np.zeros((6, 4), np.float32), np.zeros((4, 4), np.float32)
    a[:rows_a], b[:rows_b] = rng.normal(size=(rows_a, 4)), rng.normal(size=(rows_b, 4))
    found = find_coverage(data_pair(tmp_path, a, b))
    rows = coverage_rows(found)
    assert rows.height == rows_b
    if rows_a:
        assert_exact(found, a, b, 5)
    else:
        assert rows["covered"].sum() == 0
        assert rows["nearest_id"].null_count() == rows_b
    summary = summarize(found, rows)
    assert list(lines(summary))
    assert as_text(summary)
    json.loads(msgspec.json.encode(summary))


def test_rows_in_both_are_covered_and_not_far(tmp_path: Path) -> None:
    pair = data_pair(tmp_path, clusters(1, 100), clusters(2, 40, which=(7,)))
    in_both = np.arange(len(pair.in_both)) < 10
    found = find_coverage(DataPair(pair.a, pair.b, in_both))
    rows = coverage_rows(found)
    summary = summarize(found, rows, listed=100)
    assert (summary.in_both, summary.covered, summary.share_of_others) == (10, 10, 0)
    assert rows.filter(pl.col("in_both"))["covered"].all()
    assert not {row.id for row in summary.far} & set(rows.filter("in_both")["id"].to_list())


def test_equal_vectors_cover_each_other(tmp_path: Path) -> None:
    equal = np.tile(np.random.default_rng(0).normal(size=16), (30, 1))
    for options in (CoverageOptions(), CELLS):
        found = find_coverage(data_pair(tmp_path / str(options.probes), equal, 7 * equal[:8]), options)
        assert found.is_covered.all()


def test_k_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one neighbour"):
        find_coverage(data_pair(tmp_path, clusters(1, 9), clusters(2, 9)), CoverageOptions(0))
