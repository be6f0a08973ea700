"""Densities equal those of loops, and a sample by them is even where the rows are not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.similarity.duplicates.tile_product import NumpyTileProduct, TileProduct, TorchTileProduct
from embedkit.data import row_hash
from embedkit.subset.density import choose_bandwidth, row_densities, sample_by_density
from tests.embedkit.subset.fake_merged import StreamedProduct, naive_cosines, row_tiles


def hashes_of(rows: int, seed: int = 0) -> np.ndarray:
    return row_hash(seed, np.arange(rows))


def noise(rows: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((rows, 4)).astype(np.float32)


def naive_bandwidth(cosines: list[list[float]]) -> float:
    """Of the median distances to the 10th, 20th, ... nearest row, the one with the most varied log densities."""
    others = [sorted(1 - x for j, x in enumerate(row) if j != i) for i, row in enumerate(cosines)]
    ranks = [rank for rank in (10, 20, 40, 80, 160) if rank < len(cosines)] or [len(cosines) - 1]
    found = []
    for rank in ranks if len(cosines) > 1 else []:
        bandwidth = float(np.median([near[rank - 1] for near in others if near[rank - 1] > 1e-6]))
        logs = [math.log(1 + sum(max(0.0, 1 - x / bandwidth) for x in near)) for near in others]
        found.append((sum((x - sum(logs) / len(logs)) ** 2 for x in logs) / len(logs), -rank, bandwidth))
    return max(found)[2] if found else 1.0


@pytest.mark.parametrize("product", [NumpyTileProduct(), StreamedProduct(), TorchTileProduct("cpu")])
@pytest.mark.parametrize("sample_rows", [1, 30, 90, 500])
def test_densities_are_those_of_loops(product: TileProduct, sample_rows: int) -> None:
    cosines, hashes = naive_cosines(noise(90)), hashes_of(90)
    sample = sorted(range(90), key=lambda at: int(hashes[at]))[:sample_rows]
    bandwidth = naive_bandwidth([[cosines[at][other] for other in sample] for at in sample])
    wanted = []
    for at in range(90):
        kernel = [max(0.0, 1 - (1 - cosines[at][other]) / bandwidth) for other in sample if other != at]
        wanted.append((1 + sum(kernel)) / (len(sample) + 1))
        if at in sample:
            wanted[-1] = (sum(kernel) + 1) / (len(sample) + 1)
    found = row_densities(row_tiles(noise(90), 40, product), hashes, sample_rows=sample_rows)
    assert found.sampled == len(sample)
    assert math.isclose(found.bandwidth, bandwidth, rel_tol=1e-5)
    assert found.values.dtype == np.float64
    assert np.allclose(found.values, wanted, rtol=1e-4, atol=0)


def test_copies_do_not_set_the_bandwidth() -> None:
    """Of 40 rows, 25 are one vector, at which the 10th nearest row is at distance 0."""
    angles = [0.0] * 25 + [0.5 + 0.01 * i for i in range(15)]
    cosines = [[math.cos(a - b) for b in angles] for a in angles]
    wanted = naive_bandwidth(cosines)
    assert wanted > 1e-4
    assert math.isclose(choose_bandwidth(np.array(cosines, np.float32)), wanted, rel_tol=1e-3)


def test_equal_vectors_have_equal_densities() -> None:
    found = row_densities(row_tiles(np.ones((12, 3))), hashes_of(12), sample_rows=4)
    assert found.bandwidth == 1
    assert np.allclose(found.values[np.sort(np.argsort(hashes_of(12))[:4])], 4 / 5)
    assert np.allclose(np.delete(found.values, np.argsort(hashes_of(12))[:4]), 1)


def test_no_rows_have_no_densities() -> None:
    assert len(row_densities(row_tiles(np.ones((0, 3))), hashes_of(0)).values) == 0


@given(st.integers(0, 40), st.integers(1, 50), st.integers(0, 9))
def test_the_sample_is_that_of_loops(rows: int, k: int, seed: int) -> None:
    """The smallest exponential random numbers with the rate 1 / density, written out."""
    densities = np.random.default_rng(seed).uniform(0.01, 1, rows)
    hashes = hashes_of(rows, seed)
    keys = []
    for at in range(rows):
        uniform = (int(hashes[at]) >> 11) / 2**53
        keys.append((-math.log(1 - uniform) * float(densities[at]), at))
    assert sample_by_density(densities, hashes, k).tolist() == [at for _, at in sorted(keys)[:k]]


def test_rare_rows_are_drawn_in_proportion() -> None:
    """One row is drawn with a probability that is inverse to its density: 1/4 beside 1 makes 4 of 5."""
    first = [int(sample_by_density(np.array([0.25, 1.0]), hashes_of(2, seed), 1)[0]) for seed in range(4000)]
    assert abs(first.count(0) / 4000 - 0.8) < 0.02  # three standard deviations


def test_a_crowd_of_nine_tenths_becomes_a_small_part() -> None:
    """900 rows around one direction, 100 anywhere else: of 100 rows at random, some 90 are from the crowd."""
    rng = np.random.default_rng(2)
    crowd = np.eye(16)[0] + 0.02 * rng.standard_normal((900, 16))
    vectors = np.concatenate([crowd, rng.standard_normal((100, 16))])
    densities = row_densities(row_tiles(vectors), hashes_of(1000, 1))
    drawn = sample_by_density(densities.values, hashes_of(1000), 100)
    assert np.sum(drawn < 900) < 20
    assert np.sum(np.argsort(hashes_of(1000))[:100] < 900) > 80
    assert np.median(densities.values[:900]) > 50 * densities.values[900:].max()
