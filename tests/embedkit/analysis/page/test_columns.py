"""Columns of the page: what the file has for a number or a category gives it back."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedkit.analysis.page.columns import (
    QUANTIZED_STEPS,
    CategoryColumn,
    NumberColumn,
    at_positions,
    column_levels,
    describe_column,
)

FLOATS = st.floats(-1e12, 1e12) | st.just(float("nan"))
WHOLE = st.integers(-(2**40), 2**40).map(float) | st.just(float("nan"))


def numbers_back(column: NumberColumn) -> np.ndarray:
    """As the page's script computes them from the levels."""
    about, levels = describe_column(column), column_levels(column).astype(np.float64)
    step = (about["high"] - about["low"]) / about["steps"] if about["steps"] else 0
    return np.where(levels == 0, np.nan, about["low"] + (levels - 1) * step)


@given(st.lists(FLOATS))
@example([0.0, 2.2250738585072014e-308])
def test_numbers_come_back_within_half_a_step(numbers: list[float]) -> None:
    column = NumberColumn("n", "n", np.array(numbers))
    back, about = numbers_back(column), describe_column(column)
    half = 0.5001 * (about["high"] - about["low"]) / QUANTIZED_STEPS
    assert np.array_equal(np.isnan(back), np.isnan(column.numbers))
    assert np.nanmax(np.abs(back - column.numbers), initial=0) <= half
    assert column_levels(column).dtype.itemsize <= 4


@given(st.lists(WHOLE.filter(lambda number: not abs(number) > 2**31)))
def test_whole_numbers_come_back_exactly(numbers: list[float]) -> None:
    column = NumberColumn("n", "n", np.array(numbers))
    if describe_column(column)["steps"] == QUANTIZED_STEPS:
        return  # more than 2^32 apart
    assert np.array_equal(np.rint(numbers_back(column)), column.numbers, equal_nan=True)
    assert describe_column(column)["whole"]


@pytest.mark.parametrize(
    ("numbers", "steps", "log", "size"),
    [
        ([0, 1, 1], 1, False, 1),
        ([1, 32_768], 32_767, True, 2),
        ([5, 300], 295, False, 2),
        ([0.5, 0.25], QUANTIZED_STEPS, False, 2),
        ([1, 2**20], 2**20 - 1, True, 4),
        ([-3, 5000], 5003, False, 2),
        ([], 0, False, 1),
    ],
)
def test_a_column_takes_few_bytes_and_the_right_scale(numbers: list[float], steps: int, log: bool, size: int) -> None:
    column = NumberColumn("n", "n", np.array(numbers, np.float64))
    about = describe_column(column)
    assert (about["steps"], about["log"], column_levels(column).dtype.itemsize) == (steps, log, size)


def test_categories_have_a_level_each_and_none_has_zero() -> None:
    column = CategoryColumn("c", "C", np.array([1, -1, 0, 1], np.int32), ["a", "b", "unused"])
    about = describe_column(column)
    assert column_levels(column).tolist() == [2, 0, 1, 2]
    assert (about["names"], about["counts"]) == (["a", "b", "unused"], [1, 2, 0])
    assert len({tuple(colour) for colour in about["colours"]}) == 3
    assert column_levels(at_positions(column, np.array([3, 1]))).tolist() == [2, 0]
