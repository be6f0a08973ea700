"""What the page can colour, count and select rows by: a number or a category of each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.page.colours import source_colours

QUANTIZED_STEPS = 2**16 - 2
"""Steps between the least and the largest number of a column that is rounded."""
LOG_RATIO = 100
"""A column whose largest number is so many times its least one is shown on a logarithmic scale."""

Numbers = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class NumberColumn:
    """A number of each row: float64 (n,), NaN for none. name: in addresses and files. title: what people read."""

    name: str
    title: str
    numbers: Numbers


@dataclass(frozen=True)
class CategoryColumn:
    """A category of each row: codes, int32 (n,), -1 for none, and the names of the categories by code."""

    name: str
    title: str
    codes: Codes
    names: Sequence[str]


Column = NumberColumn | CategoryColumn


def at_positions(column: Column, positions: npt.NDArray[np.int64]) -> Column:
    """The column of some of its rows."""
    if isinstance(column, NumberColumn):
        return NumberColumn(column.name, column.title, column.numbers[positions])
    return CategoryColumn(column.name, column.title, column.codes[positions], column.names)


def column_levels(column: Column) -> npt.NDArray[np.unsignedinteger]:
    """What the file has for each row: unsigned integers, 0 for none.

    A category is its code plus 1. A number is from 1 for the least of the column to `steps` (`describe_column`) + 1 for
    the largest, rounded.
    """
    if isinstance(column, CategoryColumn):
        return (column.codes + 1).astype(_least_type(len(column.names)))
    low, high = _range(column.numbers)
    steps = _steps(column.numbers)
    shares = (column.numbers - low) / (high - low if high > low else 1)  # divided first: a tiny range overflows nothing
    levels = np.rint(shares * steps) + 1
    return np.where(np.isnan(levels), 0, levels).astype(_least_type(steps + 1))


def describe_column(column: Column) -> dict[str, Any]:
    """What the page's scripts need to know of a column, for JSON."""
    if isinstance(column, CategoryColumn):
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.names)).tolist()
        colours = source_colours({str(code): rows for code, rows in enumerate(counts)})
        return {
            "name": column.name,
            "title": column.title,
            "kind": "category",
            "names": list(column.names),
            "counts": counts,
            "colours": [colours[str(code)] for code in range(len(counts))],
        }
    low, high = _range(column.numbers)
    return {
        "name": column.name,
        "title": column.title,
        "kind": "number",
        "low": low,
        "high": high,
        "steps": _steps(column.numbers),
        "whole": _is_whole(column.numbers),
        "log": low >= 0 and high > LOG_RATIO * max(low, 1),
    }


def _range(numbers: Numbers) -> tuple[float, float]:
    """The least and the largest number; zeros if there is none."""
    known = numbers[~np.isnan(numbers)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)


def _is_whole(numbers: Numbers) -> bool:
    known = numbers[~np.isnan(numbers)]
    return bool((known == np.rint(known)).all())


def _steps(numbers: Numbers) -> int:
    """Steps from the least to the largest number: one for each whole number if they are whole, else rounded."""
    low, high = _range(numbers)
    is_exact = _is_whole(numbers) and high - low < np.iinfo(np.uint32).max
    return int(high - low) if is_exact else QUANTIZED_STEPS


def _least_type(largest: int) -> npt.DTypeLike:
    return np.min_scalar_type(largest) if largest < 2**16 else np.uint32
