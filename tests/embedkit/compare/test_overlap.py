"""Neighbours that are the same in both sets, compared with a plain search."""

import numpy as np
import pytest

from embedkit.compare.overlap import neighbor_overlap
from tests.support.planted import unit


def plain_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The mean share of the ten nearest rows, from all cosines in float64."""
    nearest = []
    for vectors in (a.astype(np.float64), b.astype(np.float64)):
        cosines = vectors @ vectors.T / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
        np.fill_diagonal(cosines, -2)
        nearest.append(np.argsort(-cosines, axis=1)[:, :10])
    return float(np.mean([len(set(one) & set(other)) / 10 for one, other in zip(*nearest, strict=True)]))


def test_overlap_is_that_of_a_plain_search() -> None:
    """The second set has fewer dimensions."""
    rng = np.random.default_rng(1)
    a = unit(rng.normal(size=(90, 12)))
    b = unit(a[:, :7] + 0.2 * rng.normal(size=(90, 7)))
    found = neighbor_overlap(lambda at: a[at], lambda at: b[at], 90)
    assert (len(found.shares), found.rows) == (90, 90)
    assert 0.2 < found.shares.mean() < 0.9
    assert found.shares.mean() == pytest.approx(plain_overlap(a, b))


def test_sample_is_the_same_for_both_and_bounded() -> None:
    vectors = unit(np.random.default_rng(2).normal(size=(200, 6)))
    read: list[list[int]] = []

    def reading(at: np.ndarray) -> np.ndarray:
        read.append(at.tolist())
        return vectors[at]

    found = neighbor_overlap(reading, reading, 200, seed=3, queries=20, most_rows=50)
    assert read[0] == read[1] == sorted(read[0])
    assert (len(read[0]), len(found.shares), found.rows) == (50, 20, 50)
    assert set(found.positions.tolist()) <= set(read[0])
    assert found.shares.tolist() == [1.0] * 20


def test_few_rows_have_fewer_neighbours() -> None:
    vectors = unit(np.random.default_rng(2).normal(size=(4, 6)))
    assert neighbor_overlap(lambda at: vectors[at], lambda at: vectors[at], 4).shares.tolist() == [1.0] * 4
    assert not len(neighbor_overlap(lambda at: vectors[at], lambda at: vectors[at], 1).shares)
