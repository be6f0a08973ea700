"""How far rows moved equals a loop over rows and landmarks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.compare.moved import MovedRows, choose_landmarks
from tests.support.merged_runs import cosines_between


def by_loops(a: np.ndarray, b: np.ndarray, landmarks: np.ndarray) -> list[float]:
    """1 - Pearson correlation of the cosines to the landmarks other than the row itself."""
    cosines = [cosines_between(vectors, vectors) for vectors in (a, b)]
    found = []
    for row in range(len(a)):
        others = [landmark for landmark in landmarks if landmark != row]
        one, other = (of_set[row, others] for of_set in cosines)
        found.append(1 - float(np.corrcoef(one, other)[0, 1]))
    return found


@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(8, 50),
    count=st.integers(5, 60),
    dims=st.tuples(st.integers(2, 9), st.integers(2, 9)),
)
def test_equals_a_loop(seed: int, rows: int, count: int, dims: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(rows, dim)).astype(np.float32) for dim in dims)
    landmarks = choose_landmarks(rows, seed, count)
    assert len(landmarks) == min(rows, count)
    moved = MovedRows(landmarks, a[landmarks], b[landmarks])
    found = np.concatenate([moved.measure(at, a[at], b[at]) for at in np.array_split(np.arange(rows), 3)])
    assert found == pytest.approx(by_loops(a, b, landmarks), abs=2e-4)


def test_rotation_and_length_move_nothing() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(40, 6)).astype(np.float32)
    turned = a @ np.linalg.qr(rng.normal(size=(6, 6)))[0] * rng.uniform(0.1, 9, (40, 1))
    at = np.arange(40)
    moved = MovedRows(at, a, turned.astype(np.float32)).measure(at, a, turned.astype(np.float32))
    assert moved.max() < 1e-5


def test_equal_vectors_have_no_correlation() -> None:
    a = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    equal, at = np.tile(a[0], (40, 1)), np.arange(40)
    assert np.isnan(MovedRows(at, a, equal).measure(at, a, equal)).all()
    assert np.isnan(MovedRows(at[:1], a[:1], a[:1]).measure(at[:1], a[:1], a[:1])).all()
