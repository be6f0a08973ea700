"""What passes, and what does not: numbers computed by hand and from the measurements in the module's docstring."""

import numpy as np
import pytest

from embedkit.diff.tolerance import agreement, coarser


def numbers(mean: float, spread: float = 0.0, rows: int = 500) -> np.ndarray:
    """Distances with exactly this mean and (population) standard deviation."""
    return np.where(np.arange(rows) % 2, mean + spread, mean - spread)


ZERO = np.zeros(500)


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-6), ("float16", 1e-5), ("bfloat16", 8e-5)])
def test_tolerance_is_tried_on_both_sides(dtype: str, most: float) -> None:
    assert agreement(numbers(most * 0.999), ZERO, dtype).passed
    assert not agreement(numbers(most * 1.001), ZERO, dtype).passed


def test_bound_is_three_standard_errors_above_the_mean() -> None:
    """Four numbers: mean 2e-5, deviations of 1e-5; the variance is 4e-10 / 3."""
    found = agreement(np.array([1e-5, 3e-5, 1e-5, 3e-5]), np.zeros(4), "bfloat16")
    assert found.mean == pytest.approx(2e-5)
    assert found.bound == pytest.approx(2e-5 + 3 * np.sqrt(4e-10 / 3) / 2)


def test_few_scattered_rows_do_not_pass_by_luck() -> None:
    assert agreement(numbers(6e-5, 5e-5, 500), ZERO, "bfloat16").passed
    assert not agreement(numbers(6e-5, 5e-5, 4), np.zeros(4), "bfloat16").passed


def test_one_row_far_away_does_not_pass() -> None:
    distances = np.zeros(5000)
    for worst, passes in ((0.00199, True), (0.00201, False)):
        distances[7] = worst
        assert agreement(distances, np.zeros(5000), "bfloat16").passed is passes


def test_lengths_may_differ_by_the_root_of_two_tolerances() -> None:
    """sqrt(2 * 8e-5) = 0.0126."""
    assert agreement(ZERO, numbers(0.0126), "bfloat16").passed
    assert not agreement(ZERO, numbers(0.0127), "bfloat16").passed


@pytest.mark.parametrize(
    ("batches", "alone", "noise", "shift", "passes"),
    [
        (0.0, 8.4e-5, 8.4e-5, 0.0, True),  # the stored vectors are the new ones
        (0.0, 8.4e-5, 8.4e-5, 1e-4, False),
        (1.10e-4, 1.11e-4, 8.36e-5, 0.0, True),  # stored with another kernel
        (1.10e-4, 1.11e-4, 8.36e-5, 1e-4, False),
        (1.10e-4, 1.11e-4, 7.39e-5, 0.0, True),
        (1.10e-4, 1.11e-4, 7.39e-5, 1e-4, False),
    ],
)
def test_measured_noise_passes_and_a_shift_does_not(
    batches: float, alone: float, noise: float, shift: float, passes: bool
) -> None:
    """With the means and deviations that were measured on a GPU in bfloat16."""
    found = agreement(
        numbers(batches + shift, 1e-5), ZERO, "bfloat16", None, numbers(alone + shift, 1e-5), numbers(noise, 1e-5)
    )
    assert found.passed is passes
    assert found.apart == pytest.approx((batches + alone - noise) / 2 + shift)


def test_noise_of_a_deep_network_raises_the_tolerance() -> None:
    found = agreement(numbers(2e-4), ZERO, "bfloat16", None, numbers(2e-4), numbers(2e-4))
    assert found.most_apart == pytest.approx(2.2e-4)
    assert found.passed


def test_typed_tolerance_counts_alone_and_widens_the_rest() -> None:
    assert not agreement(numbers(5e-5), ZERO, "bfloat16", 4e-5).passed
    found = agreement(numbers(7e-4), ZERO, "bfloat16", 8e-4, numbers(7e-4), numbers(9e-4))
    assert (found.most_apart, found.most_worst) == (8e-4, pytest.approx(2e-2))
    assert found.passed


def test_nothing_compared_does_not_pass() -> None:
    assert not agreement(np.empty(0), np.empty(0), "float32").passed


def test_coarser_dtype_has_the_larger_tolerance() -> None:
    assert coarser("float32", "bfloat16") == "bfloat16"
    assert coarser("float16", "float32") == "float16"
