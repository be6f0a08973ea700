"""TwoNN finds planted dimensions, and equals a naive loop."""

import math
from pathlib import Path

import numpy as np
import pytest

from embedkit.analysis.similarity.all_neighbors import AllNeighborsOptions, RowNeighbors, neighbors_of_all
from embedkit.analysis.space.dimension import IntrinsicDimension, intrinsic_dimension
from tests.support.merged_runs import merged_of


def found_for(folder: Path, vectors: np.ndarray, k: int = 4) -> IntrinsicDimension:
    merged = merged_of(folder / "a", vectors.astype(np.float32))
    return intrinsic_dimension(neighbors_of_all(merged, AllNeighborsOptions(k)))


def on_sphere(rows: int, dimension: int, ambient: int, seed: int = 0) -> np.ndarray:
    """Uniform on a sphere of this dimension, turned at random in the ambient space."""
    rng = np.random.default_rng(seed)
    inside = rng.standard_normal((rows, dimension + 1))
    turn, _ = np.linalg.qr(rng.standard_normal((ambient, dimension + 1)))
    return inside @ turn.T


def naive(vectors: np.ndarray) -> float:
    """TwoNN of distinct vectors, row by row in float64."""
    units = [row / np.linalg.norm(row) for row in vectors.astype(np.float32).astype(np.float64)]
    logs = []
    for i, own in enumerate(units):
        distances = sorted(math.dist(own, other) for j, other in enumerate(units) if j != i)
        logs.append(math.log(distances[1] / distances[0]))
    logs.sort()
    xy = xx = 0.0
    for rank, x in enumerate(logs[: int(len(logs) * 0.9)], start=1):
        xy += x * -math.log(1 - rank / len(logs))
        xx += x * x
    return xy / xx


@pytest.mark.parametrize(("dimension", "rows"), [(1, 150), (2, 2000), (5, 4000), (9, 4000)])
def test_a_planted_dimension_is_found(dimension: int, rows: int, tmp_path: Path) -> None:
    """Uniform on a sphere of d dimensions in 48. Some rows are so near that float32 does not resolve the distance."""
    found = found_for(tmp_path, on_sphere(rows, dimension, 48))
    assert found.dimension == pytest.approx(dimension, rel=0.15)
    assert (found.rows + found.duplicates, found.without_ratio) == (rows, 0)
    assert found.duplicates < 0.1 * rows
    assert dimension < 5 or not found.duplicates


def test_a_flat_piece_in_many_dimensions(tmp_path: Path) -> None:
    """Uniform in a cube of three dimensions that is tangent to the sphere in 64."""
    cube = np.random.default_rng(1).uniform(-0.2, 0.2, (4000, 64)) * (np.arange(64) < 3)
    cube[:, 63] = 1
    assert found_for(tmp_path, cube).dimension == pytest.approx(3, rel=0.08)


def test_it_equals_a_naive_loop(tmp_path: Path) -> None:
    vectors = np.random.default_rng(2).standard_normal((150, 6))
    assert found_for(tmp_path, vectors).dimension == pytest.approx(naive(vectors), rel=1e-5)


def test_duplicates_are_left_out_and_counted(tmp_path: Path) -> None:
    """Rows with a copy are left out. To the other rows, a copied row is one neighbour, not two at the same distance."""
    vectors = on_sphere(3000, 3, 16)
    copied = np.concatenate([vectors, vectors[:300], vectors[:300]])
    found = found_for(tmp_path, copied)
    assert (found.rows, found.duplicates, found.without_ratio) == (2700, 900, 0)
    assert found.dimension == pytest.approx(3, rel=0.1)


def test_a_duplicate_is_within_four_steps_of_float32() -> None:
    """The steps below 1 are 2^-24."""
    cosines = np.array([[1 - 4 * 2**-24, 0.5], [1 - 5 * 2**-24, 0.5], [0.9, 0.5], [0.8, 0.5]], np.float32)
    neighbors = RowNeighbors(np.arange(4), np.zeros((4, 2), np.int32), cosines, "exact")
    found = intrinsic_dimension(neighbors)
    assert (found.rows, found.duplicates) == (3, 1)


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_few_rows_have_no_dimension_or_a_number(rows: int, tmp_path: Path) -> None:
    vectors = np.zeros((4, 3))
    vectors[:rows] = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 4]])[:rows]
    found = found_for(tmp_path, vectors)
    assert found.rows + found.without_ratio == rows
    assert (found.dimension is None) == (rows < 3)


def test_equal_vectors_have_no_dimension(tmp_path: Path) -> None:
    assert found_for(tmp_path, np.ones((30, 4))) == IntrinsicDimension(None, 0, 30, 0)
