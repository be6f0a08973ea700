"""1 - cosine and differences of lengths, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.diff.distances import FURTHEST, compare
from tests.support.planted import shifted, unit


def test_distances_of_known_angles() -> None:
    """Vectors at 0, 60, 90 and 180 degrees; lengths 1 to 1, 2, 0.5 and 1."""
    a = np.array([[1, 0], [1, 0], [2, 0], [0, 1]], np.float32)
    b = np.array([[1, 0], [1, np.sqrt(3)], [0, 1], [0, -1]], np.float32)
    found = compare(a, b)
    assert found.distances == pytest.approx([0, 0.5, 1, 2], abs=1e-7)
    assert found.lengths == pytest.approx([0, 1, 0.5, 0], abs=1e-7)


def test_vector_without_direction_is_as_far_as_can_be() -> None:
    a = np.ones((3, 2), np.float32)
    b = np.array([[0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    assert compare(a, b).distances.tolist() == [FURTHEST] * 3


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), power=st.floats(-9, -0.5), dim=st.integers(3, 64))
def test_planted_distance_is_found_to_its_third_digit(seed: int, power: float, dim: int) -> None:
    """Also one that 1 - cosine in float32 could not show: it has no number between 0 and 6e-8."""
    vectors = unit(np.random.default_rng(seed).normal(size=(5, dim)))
    found = compare(vectors, shifted(vectors, 10**power, seed)).distances
    assert found == pytest.approx(np.full(5, 10**power), rel=1e-2)
