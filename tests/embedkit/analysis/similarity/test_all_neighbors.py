"""The nearest rows of every row equal those of a naive search; the approximate search reports its true recall."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.similarity.all_neighbors import (
    AllNeighborsOptions,
    RowNeighbors,
    nearest_of,
    neighbors_of_all,
    neighbors_table,
)
from embedkit.analysis.similarity.all_neighbors import find as find_module
from embedkit.analysis.similarity.duplicates.cells import nearest_cells
from embedkit.analysis.similarity.duplicates.tile_product import TorchTileProduct
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from tests.support.merged_runs import cosines_between, merged_of

SOURCES = [["math", "code", "chat/é"][i * i % 7 % 3] for i in range(600)]


def planted(seed: int = 0, rows: int = 600, dim: int = 32) -> np.ndarray:
    """Noise in groups, 40 equal rows, vectors of any norm, and a few empty rows."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((rows // 30, dim))
    vectors = centres[rng.integers(0, len(centres), rows)] + 0.5 * rng.standard_normal((rows, dim))
    vectors[rng.integers(0, rows, 40)] = vectors[5]
    vectors *= rng.uniform(0.1, 9, (rows, 1))
    vectors[rng.integers(0, rows, 6)] = 0
    return vectors.astype(np.float32)


def naive(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, neighbours and cosines in float64, by a loop over the rows with a text."""
    positions = np.flatnonzero(vectors.any(axis=1))
    cosines = cosines_between(vectors[positions], vectors[positions])
    np.fill_diagonal(cosines, -np.inf)
    neighbors = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return positions, neighbors, np.take_along_axis(cosines, neighbors, 1)


def assert_right(found: RowNeighbors, vectors: np.ndarray, k: int) -> None:
    """Assert that every neighbour is as near as the exact one, to the rounding of the search, and in order."""
    positions, neighbors, cosines = naive(vectors, k)
    there = found.neighbors[:, : cosines.shape[1]]
    assert (found.positions == positions).all()
    assert found.neighbors.dtype == np.int32
    assert found.cosines.dtype == np.float32
    assert np.allclose(found.cosines[:, : cosines.shape[1]], cosines, rtol=0, atol=1e-6)
    own = cosines_between(vectors[positions], vectors[positions])
    assert np.allclose(found.cosines[:, : cosines.shape[1]], np.take_along_axis(own, there, 1), rtol=0, atol=1e-7)
    for row, (indices, near) in enumerate(zip(found.neighbors, found.cosines, strict=True)):
        listed = [(-cosine, index) for cosine, index in zip(near, indices, strict=True) if index >= 0]
        assert listed == sorted(listed)
        assert len({index for _, index in listed} - {row}) == len(listed)
    gaps = np.diff(cosines, axis=1) if cosines.shape[1] > 1 else np.zeros((len(cosines), 0))
    distinct = (gaps < -1e-5).all(axis=1)
    assert (there[distinct, :-1] == neighbors[distinct, :-1]).all()


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    return merged_of(tmp_path_factory.mktemp("planted"), planted(), SOURCES)


@pytest.fixture(params=["faiss", "torch"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tiles multiplied by faiss, or by the code for GPUs, here on a CPU."""
    if request.param == "torch":
        monkeypatch.setattr(find_module, "choose_tile_product", lambda: TorchTileProduct("cpu"))
        monkeypatch.setattr("embedkit.analysis.similarity.duplicates.tile_product.TOP_COLUMNS", 70)
    return str(request.param)


@pytest.mark.parametrize("tile_rows", [64, 150, 8192])
@pytest.mark.parametrize("k", [1, 10])
def test_neighbours_are_those_of_a_naive_search(merged: Merged, k: int, tile_rows: int, arithmetic: str) -> None:
    found = neighbors_of_all(merged, AllNeighborsOptions(k, tile_rows=tile_rows))
    assert (found.method, found.recall, found.sampled_rows, found.k) == ("exact", None, 0, k)
    assert_right(found, planted(), k)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), tile_rows=st.integers(1, 90), k=st.integers(1, 12), rows=st.integers(30, 80))
def test_any_rows_in_any_tiles(
    seed: int, tile_rows: int, k: int, rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vectors = planted(seed, rows)
    merged = merged_of(tmp_path_factory.mktemp("a"), vectors)
    assert_right(neighbors_of_all(merged, AllNeighborsOptions(k, tile_rows=tile_rows)), vectors, k)


def test_all_cells_are_the_exact_search(merged: Merged) -> None:
    found = neighbors_of_all(merged, AllNeighborsOptions(7, exact_rows=10, cells=4, probes=9, tile_rows=29))
    assert (found.method, found.recall) == ("approximate", 1)
    assert_right(found, planted(), 7)


def test_a_coarse_search_reports_its_true_recall(merged: Merged) -> None:
    """The share of the exact neighbours, counted here by cosine, for all rows and for a sample."""
    _, _, exact = naive(planted(), 5)
    options = AllNeighborsOptions(5, exact_rows=10, cells=200, probes=2, sample=600)
    found = neighbors_of_all(merged, options)
    hits = [near >= wanted[-1] - 1e-6 for near, wanted in zip(found.cosines, exact, strict=True)]
    assert found.sampled_rows == len(exact)
    assert found.recall == pytest.approx(np.mean(hits))
    assert 0.2 < found.recall < 0.95
    assert np.array_equal(neighbors_of_all(merged, options).neighbors, found.neighbors)


def test_a_row_is_compared_with_members_of_its_cells(merged: Merged) -> None:
    """The neighbours of a row are the nearest of all rows whose first cell is among its nearest cells."""
    ids = merged.ids[merged.has_text]
    near = nearest_cells(merged, ids, 40, 3, 0)
    found = neighbors_of_all(merged, AllNeighborsOptions(10, exact_rows=10, cells=40, probes=3, tile_rows=31))
    vectors = planted()[merged.has_text]
    cosines = cosines_between(vectors, vectors)
    for row in range(0, len(ids), 5):
        met = [other for other in range(len(ids)) if other != row and near[other][0] in near[row]]
        wanted = sorted((cosines[row, other] for other in met), reverse=True)[:10]
        assert np.allclose(found.cosines[row][found.neighbors[row] >= 0], wanted, rtol=0, atol=1e-6)


def test_equal_rows_are_neighbours_by_index(tmp_path: Path, arithmetic: str) -> None:
    """Every neighbour of each of 300 equal rows has the cosine 1, and no row is its own neighbour."""
    vectors = np.tile(planted()[5], (300, 1))
    merged = merged_of(tmp_path / "a", vectors)
    for options in (AllNeighborsOptions(4, tile_rows=64), AllNeighborsOptions(4, exact_rows=10)):
        found = neighbors_of_all(merged, options)
        assert (found.cosines == 1).all()
        assert (np.diff(found.neighbors, axis=1) > 0).all()
        assert (found.neighbors != np.arange(300)[:, None]).all()
        assert found.recall in (None, 1)


@pytest.mark.parametrize("with_text", [0, 1, 2, 3])
@pytest.mark.parametrize("exact_rows", [0, 100])
def test_few_rows(with_text: int, exact_rows: int, tmp_path: Path, arithmetic: str) -> None:
    """Fewer rows than neighbours: what is missing is -1 and NaN."""
    vectors = np.zeros((5, 4), np.float32)
    vectors[1 : 1 + with_text] = np.eye(4)[:with_text] + 1
    found = neighbors_of_all(merged_of(tmp_path / "a", vectors), AllNeighborsOptions(3, exact_rows))
    assert found.positions.tolist() == list(range(1, 1 + with_text))
    assert found.neighbors.shape == (with_text, 3)
    others = max(with_text - 1, 0)
    for row, (indices, cosines) in enumerate(zip(found.neighbors.tolist(), found.cosines, strict=True)):
        assert indices == [other for other in range(with_text) if other != row] + [-1] * (3 - others)
        assert np.allclose(cosines[:others], 6 / 7)  # between (2, 1, 1, 1) and (1, 2, 1, 1)
        assert np.isnan(cosines[others:]).all()


def test_indices_count_the_chosen_rows_with_a_text(tmp_path: Path) -> None:
    """With a subset of the sources neither ids nor rows are positions."""
    vectors = planted()
    found = neighbors_of_all(merged_of(tmp_path / "a", vectors, SOURCES, only=["code"]), AllNeighborsOptions(5))
    assert_right(found, vectors[[name == "code" for name in SOURCES]], 5)


def test_layouts_give_equal_neighbours(small_run: RunFolder, small_sharded_run: RunFolder) -> None:
    one, two = (neighbors_of_all(open_merged(run, "response")) for run in (small_run, small_sharded_run))
    assert np.array_equal(one.neighbors, two.neighbors)
    assert np.array_equal(one.cosines, two.cosines, equal_nan=True)
    assert_right(one, np.asarray(open_merged(small_run, "response").matrix), 10)


def test_progress_counts_every_row_once(merged: Merged) -> None:
    for options in (AllNeighborsOptions(2, tile_rows=40), AllNeighborsOptions(2, exact_rows=10)):
        done: list[int] = []
        neighbors_of_all(merged, options, done.append)
        assert sum(done) == merged.has_text.sum()
        assert len(done) > 3


def test_no_neighbours_requested_is_refused(merged: Merged) -> None:
    with pytest.raises(UsageError, match="at least one neighbour"):
        neighbors_of_all(merged, AllNeighborsOptions(0))


def test_the_table_has_ids_and_null_where_rows_are_few(tmp_path: Path) -> None:
    vectors = np.array([[1, 0], [0, 0], [0.9, 0.1], [0, 1]], np.float32)
    merged = merged_of(tmp_path, vectors, ["a"] * 4)
    found = neighbors_table(merged, neighbors_of_all(merged, AllNeighborsOptions(k=3)))
    assert found["id"].to_list() == [0, 2, 3]
    assert found["neighbors"].to_list() == [[2, 3, None], [0, 3, None], [2, 0, None]]
    assert found["cosines"].to_list()[0][:2] == pytest.approx([0.9 / np.hypot(0.9, 0.1), 0], abs=1e-6)
    assert found["cosines"].to_list()[0][2] is None
    near = nearest_of(merged, neighbors_of_all(merged, AllNeighborsOptions(k=3)), np.array([1, 2, 9]))
    assert near["ids"] == [[], [0, 3], []]
    assert near["cosines"][1] == pytest.approx([0.9939, 0.1104], abs=1e-4)
