"""Linear CKA equals the formula with Gram matrices, and has the invariances that it was made for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.compare.cka import StreamedCka


def streamed(a: np.ndarray, b: np.ndarray, block: int = 7) -> float | None:
    a, b = a.astype(np.float32), b.astype(np.float32)
    cka = StreamedCka(a[:3].mean(axis=0), b[:3].mean(axis=0))
    for start in range(0, len(a), block):
        cka.add(a[start : start + block], b[start : start + block])
    return cka.result()


def by_gram_matrices(a: np.ndarray, b: np.ndarray) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), with HSIC(K, L) = tr(K H L H) / (n - 1)^2."""
    n = len(a)
    centre = np.eye(n) - 1 / n
    grams = [vectors.astype(np.float32).astype(np.float64) for vectors in (a, b)]
    k, l_ = (vectors @ vectors.T for vectors in grams)

    def hsic(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.trace(one @ centre @ other @ centre)) / (n - 1) ** 2

    return hsic(k, l_) / float(np.sqrt(hsic(k, k) * hsic(l_, l_)))


def rotation(rng: np.random.Generator, dim: int) -> np.ndarray:
    return np.asarray(np.linalg.qr(rng.normal(size=(dim, dim)))[0])


@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(3, 60),
    dims=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    block=st.integers(1, 70),
    mean=st.sampled_from([0, 1, 20]),
)
def test_equals_the_formula_of_gram_matrices(
    seed: int, rows: int, dims: tuple[int, int], block: int, mean: float
) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(rows, dims[0])) + mean
    b = rng.normal(size=(rows, dims[1])) + a[:, :1]
    assert streamed(a, b, block) == pytest.approx(by_gram_matrices(a, b), abs=2e-5)


@given(seed=st.integers(0, 2**32), scale=st.floats(0.01, 100))
def test_rotation_scale_and_shift_change_nothing(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(50, 6)), rng.normal(size=(50, 4))
    turned = scale * (b @ rotation(rng, 4) + rng.normal(size=4))
    assert streamed(a, turned) == pytest.approx(streamed(a, b), abs=1e-4)
    assert streamed(b, turned) == pytest.approx(1, abs=1e-5)


def test_a_set_equals_itself_and_not_noise() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 5))
    assert streamed(a, a) == pytest.approx(1, abs=1e-6)
    unrelated = streamed(a, rng.normal(size=(4000, 5)))
    assert unrelated is not None
    assert unrelated < 0.01


def test_a_stretched_direction_changes_it() -> None:
    """CKA weighs directions by their variance; a linear map that is no rotation is seen."""
    a = np.random.default_rng(0).normal(size=(500, 5))
    found = streamed(a, a * [10, 1, 1, 1, 1])
    assert found is not None
    assert found < 0.6


def test_equal_rows_and_single_rows_have_none() -> None:
    a = np.random.default_rng(0).normal(size=(9, 5))
    assert streamed(a, np.tile(a[0], (9, 1))) is None
    assert streamed(a[:1], a[:1]) is None
    assert StreamedCka(np.zeros(3, np.float32), np.zeros(2, np.float32)).result() is None
