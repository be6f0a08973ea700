"""The selected rows are those of a plain farthest-first traversal, whatever the pool and the tiles."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedkit.analysis.similarity.duplicates.tile_product import NumpyTileProduct, TorchTileProduct
from embedkit.subset.coverage import INNER_ROWS, POOL_ROWS, Traversal, farthest_first, farthest_rows
from tests.embedkit.subset.fake_merged import StreamedProduct, naive_cosines, row_tiles

ROUNDING = 2e-6
VECTORS = st.integers(1, 25).flatmap(
    lambda rows: arrays.arrays(np.float32, (rows, 3), elements=st.integers(-4, 4).map(float))
)


def clustered(rows: int, seed: int = 0) -> np.ndarray:
    """Noise in groups, of any norm. No two distances are nearly equal."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows // 10 + 1, 16))[rng.integers(0, rows // 10 + 1, rows)]
    vectors += 0.4 * rng.standard_normal((rows, 16))
    return (vectors * rng.uniform(0.1, 9, (rows, 1))).astype(np.float32)


def naive_first(vectors: np.ndarray) -> int:
    rows = vectors[vectors.any(axis=1)].astype(np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return int((units @ units.mean(axis=0)).argmax())


def naive_traversal(vectors: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    """Positions, and the distance of each to the rows before it (0 for the first), by loops over all rows."""
    cosines = naive_cosines(vectors)
    selected, radii = [naive_first(vectors)], [0.0]
    while len(selected) < k:
        distances = [1 - max(row[at] for at in selected) for row in cosines]
        radii.append(max(distances))
        selected.append(distances.index(max(distances)))
    return selected, radii


def assert_greedy(found: Traversal, vectors: np.ndarray, k: int) -> None:
    """Assert that each row was farthest when it was selected, and that it stops where only copies are left."""
    cosines = naive_cosines(vectors)
    for number in range(1, len(found.selected)):
        before = found.selected[:number]
        distances = [1 - max(row[at] for at in before) for row in cosines]
        assert distances[found.selected[number]] > max(distances) - ROUNDING
        assert abs(found.distances[number] - max(distances)) < ROUNDING
    assert len(set(found.selected.tolist())) == len(found.selected) <= k
    if len(found.selected) < min(k, len(cosines)):
        assert all(max(row[at] for at in found.selected) > 1 - ROUNDING for row in cosines)


LARGE = clustered(150)
WANTED, RADII = naive_traversal(LARGE, 40)


@pytest.mark.parametrize("pool_rows", [1, 2, 7, 150, POOL_ROWS])
@pytest.mark.parametrize("tile_rows", [64, 1000])
@pytest.mark.parametrize("inner_rows", [1, 10, INNER_ROWS])
def test_rows_are_those_of_the_naive_traversal(pool_rows: int, tile_rows: int, inner_rows: int) -> None:
    for product in (NumpyTileProduct(), StreamedProduct(), TorchTileProduct("cpu")):
        found = farthest_first(row_tiles(LARGE, tile_rows, product), 40, pool_rows=pool_rows, inner_rows=inner_rows)
        assert found.selected.tolist() == WANTED
        assert np.isnan(found.distances[0])
        assert np.allclose(found.distances[1:], RADII[1:], rtol=0, atol=ROUNDING)


@settings(max_examples=50)
@given(VECTORS, st.integers(1, 30), st.sampled_from([1, 2, 7, 100]), st.sampled_from([1, 3, 100]))
def test_every_selected_row_was_the_farthest(vectors: np.ndarray, k: int, pool_rows: int, inner_rows: int) -> None:
    """Many equal vectors and equal distances, and vectors of zeros, which take no part."""
    rows = row_tiles(vectors, 3, StreamedProduct())
    found = farthest_first(rows, k, pool_rows=pool_rows, inner_rows=inner_rows)
    assert len(rows) == vectors.any(axis=1).sum()
    assert_greedy(found, vectors, k)


@given(arrays.arrays(np.float32, (7, 3), elements=st.integers(-4, 4).map(float)), st.integers(1, 3))
def test_no_k_rows_are_twice_as_near(vectors: np.ndarray, k: int) -> None:
    """Gonzalez 1985: the farthest row is at most twice as far as with the best k rows, found by trying all."""
    cosines = np.array(naive_cosines(vectors))
    if not len(cosines):
        return
    euclidean = np.sqrt(np.maximum(2 - 2 * cosines, 0))
    best = min(
        euclidean[:, list(some)].min(axis=1).max() for some in combinations(range(len(cosines)), min(k, len(cosines)))
    )
    found = farthest_first(row_tiles(vectors), k)
    assert euclidean[:, found.selected].min(axis=1).max() <= 2 * best + 0.01


@pytest.mark.parametrize("pool_rows", [1, 3, 100])
@pytest.mark.parametrize("inner_rows", [1, 2, 100])
def test_of_equally_far_rows_the_lowest_is_selected(pool_rows: int, inner_rows: int) -> None:
    """Six directions at right angles, each three times. The mean is equally near to all."""
    vectors = np.eye(6)[[0, 1, 2, 3, 4, 5] * 3]
    found = farthest_first(row_tiles(vectors, 4, StreamedProduct()), 18, pool_rows=pool_rows, inner_rows=inner_rows)
    assert found.selected.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.distances[1:].tolist() == [1, 1, 1, 1, 1]
    assert found.found.nearest.tolist() == [0, 1, 2, 3, 4, 5] * 3


def test_the_first_rows_hit_every_planted_cluster() -> None:
    """20 clusters of very different sizes: a random subset of 20 rows would miss most of them."""
    rng = np.random.default_rng(1)
    centres, _ = np.linalg.qr(rng.standard_normal((32, 32)))
    sizes = [900] + [5] * 19
    cluster = np.repeat(np.arange(20), sizes)
    vectors = centres[cluster] + 0.02 * rng.standard_normal((len(cluster), 32))
    order = rng.permutation(len(cluster))
    found = farthest_first(row_tiles(vectors[order]), 20)
    assert sorted(cluster[order][found.selected].tolist()) == list(range(20))


def test_nearest_rows_are_those_of_loops() -> None:
    vectors = clustered(200, seed=3)
    cosines = naive_cosines(vectors)
    found = farthest_first(row_tiles(vectors, 64, StreamedProduct()), 23, pool_rows=10)
    nearest = [int(np.argmax([row[at] for at in found.selected])) for row in cosines]
    assert found.found.nearest.tolist() == nearest
    assert found.found.nearest.dtype == np.int32
    assert np.allclose(found.found.cosines, [max(row[at] for at in found.selected) for row in cosines], atol=ROUNDING)
    assert found.found.rows_nearest().tolist() == [nearest.count(number) for number in range(23)]


def test_a_larger_pool_needs_fewer_passes() -> None:
    vectors = clustered(400, seed=4)
    passes = [farthest_first(row_tiles(vectors), 100, pool_rows=pool).passes for pool in (1, 20, 400)]
    assert passes[0] == 100
    assert passes[0] > 2 * passes[1] > 2 * passes[2]
    assert passes[2] == 2


def test_progress_is_the_number_of_selected_rows() -> None:
    seen: list[int] = []
    farthest_first(row_tiles(clustered(50)), 20, seen.append, pool_rows=5)
    assert sum(seen) == 20


@pytest.mark.parametrize(("rows", "wanted"), [(0, []), (1, [0])])
def test_almost_no_rows(rows: int, wanted: list[int]) -> None:
    assert farthest_first(row_tiles(np.ones((rows, 4))), 5).selected.tolist() == wanted


def test_opposite_vectors_have_no_mean() -> None:
    assert farthest_first(row_tiles(np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]])), 2).selected.tolist() == [0, 1]


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=12).map(lambda x: np.array(x, np.float32)),
    st.integers(1, 12),
)
def test_the_pool_has_the_farthest_rows(cosines: np.ndarray, count: int) -> None:
    in_order = sorted((float(cosine), at) for at, cosine in enumerate(cosines))
    at, border = farthest_rows(cosines, count)
    assert at.tolist() == sorted(position for _, position in in_order[:count])
    assert border == (in_order[count] if count < len(in_order) else (np.inf, -1))
