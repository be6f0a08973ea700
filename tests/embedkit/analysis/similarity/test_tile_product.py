"""What NumPy and PyTorch multiply and reduce by row equals plain loops, in tiles of any size."""

import numpy as np
import pytest

from embedkit.analysis.similarity.duplicates import tile_product
from embedkit.analysis.similarity.duplicates.needless import Counted, Joined, Needless, PairCounts
from embedkit.analysis.similarity.duplicates.tile_product import (
    NumpyTileProduct,
    TileProduct,
    TorchTileProduct,
    row_pieces,
)

A = np.random.default_rng(0).standard_normal((37, 8)).astype(np.float32)
B = np.random.default_rng(1).standard_normal((11, 8)).astype(np.float32)
UNITS = B / np.linalg.norm(B, axis=1, keepdims=True)


@pytest.fixture(params=["numpy", "torch"])
def product(request: pytest.FixtureRequest) -> TileProduct:
    return NumpyTileProduct() if request.param == "numpy" else TorchTileProduct("cpu")


@pytest.fixture(params=[1, 40, 1 << 20])
def products_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(tile_product, "CPU_PRODUCTS", request.param)
    monkeypatch.setattr(tile_product, "GPU_PRODUCTS", request.param)
    return int(request.param)


def test_row_maxima_are_those_of_loops(product: TileProduct, products_at_once: int) -> None:
    at, maxima = product.row_maxima(product.place(A), product.put(B))
    wanted = [[sum(float(x) * float(y) for x, y in zip(row, other, strict=True)) for other in UNITS] for row in A]
    assert at.dtype == np.int64
    assert maxima.dtype == np.float32
    assert at.tolist() == [row.index(max(row)) for row in wanted]
    assert np.allclose(maxima, [max(row) for row in wanted], rtol=0, atol=1e-6)


def test_pairs_joined_where_they_reach_are_left_out(
    product: TileProduct, products_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_product, "MANY_PAIRS", 0)
    monkeypatch.setattr(tile_product, "CACHED_PRODUCTS", products_at_once)
    least = np.array([-0.5, 0.0, 0.4], np.float32)
    rng = np.random.default_rng(2)
    # Labels are finer at higher levels: rows that are joined there are joined below.
    fine = {"a": rng.integers(0, 8, len(A)), "b": rng.integers(0, 8, len(B))}
    labels = {side: np.stack([found // 4, found // 2, found]).astype(np.int32) for side, found in fine.items()}
    i, j, scores = product.above(product.put(A), product.put(B), -0.5, lambda: Needless(Joined(least, **labels)))
    found = dict(zip(zip(i.tolist(), j.tolist(), strict=True), scores.tolist(), strict=True))
    cosines = (A / np.linalg.norm(A, axis=1, keepdims=True)).astype(np.float64) @ UNITS.T
    wanted = {}
    for row, column in np.ndindex(cosines.shape):
        reached = [level for level in range(3) if cosines[row, column] >= least[level]]
        if reached and labels["a"][reached[-1], row] != labels["b"][reached[-1], column]:
            wanted[row, column] = pytest.approx(cosines[row, column], abs=1e-6)
    assert found == wanted
    assert 0 < len(found) < (cosines >= -0.5).sum()


@pytest.mark.parametrize("with_joined", [False, True])
def test_counted_pairs_are_left_out_where_pytorch_multiplies(with_joined: bool) -> None:
    product = TorchTileProduct("cpu")
    rng = np.random.default_rng(3)
    codes_a, codes_b = rng.integers(0, 3, len(A)), rng.integers(0, 3, len(B))
    labels = [rng.integers(0, 2, (1, rows)).astype(np.int32) for rows in (len(A), len(B))]
    listed = np.arange(len(A)) < 20
    counts = PairCounts(3)
    counted = Counted(-0.2, 0.4, listed, codes_a, codes_b, counts)
    joined = Joined(np.array([-0.5], np.float32), *labels) if with_joined else None
    i, j, _ = product.above(product.put(A), product.put(B), -0.5, lambda: Needless(joined, counted))
    cosines = (A / np.linalg.norm(A, axis=1, keepdims=True)).astype(np.float64) @ UNITS.T
    given, times = set(), np.zeros((3, 3), int)
    for row, column in np.argwhere(cosines >= -0.5).tolist():
        cosine = cosines[row, column]
        is_counted = cosine > -0.2 and (cosine < 0.4 or not listed[row])
        if is_counted and (not with_joined or labels[0][0, row] == labels[1][0, column]):
            low, high = sorted((int(codes_a[row]), int(codes_b[column])))
            times[high, low] += 1
        else:
            given.add((row, column))
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == given
    found = {key: count for keys, of in counts.blocks() for key, count in zip(keys.tolist(), of.tolist(), strict=True)}
    assert found == {at: int(count) for at, count in enumerate(times[np.tril_indices(3)]) if count}
    assert times.sum() > 20


@pytest.mark.parametrize("bandwidth", [0.3, 1.5])
def test_kernel_sums_are_those_of_loops(product: TileProduct, products_at_once: int, bandwidth: float) -> None:
    norms = np.linalg.norm(A, axis=1)
    sums = product.kernel_sums(product.place(A), norms, product.put(B), bandwidth)
    cosines = [[float(np.dot(row, other)) / float(norm) for other in UNITS] for row, norm in zip(A, norms, strict=True)]
    wanted = [sum(max(0.0, 1 - (1 - cosine) / bandwidth) for cosine in row) for row in cosines]
    assert sums.dtype == np.float64
    assert np.allclose(sums, wanted, rtol=1e-5, atol=1e-5)
    assert any(sums > 0)


def test_taken_rows_are_in_the_order_given(product: TileProduct) -> None:
    taken = product.take(product.put(B), np.array([3, 0, 3]))
    assert np.allclose(np.asarray(taken), UNITS[[3, 0, 3]], rtol=0, atol=1e-7)


def test_placed_vectors_keep_their_norms(product: TileProduct) -> None:
    assert (np.asarray(product.place(A)) == A).all()


@pytest.mark.parametrize(
    ("rows", "columns", "products", "wanted"),
    [(5, 3, 6, [(0, 2), (2, 4), (4, 5)]), (2, 10, 5, [(0, 1), (1, 2)]), (0, 4, 8, []), (3, 0, 9, [(0, 3)])],
)
def test_pieces_have_at_most_so_many_products(
    rows: int, columns: int, products: int, wanted: list[tuple[int, int]]
) -> None:
    found = [range(rows)[piece] for piece in row_pieces(rows, columns, products)]
    assert [(piece.start, piece.stop) for piece in found] == wanted
