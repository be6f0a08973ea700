"""`analyze --column FILE.parquet:NAME`: what a user adds to the page by row, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.added_columns import MAX_CATEGORIES, read_added_columns
from embedkit.analysis.page.columns import CategoryColumn, NumberColumn
from embedkit.errors import UsageError

ROWS = np.array([0, 2, 3, 9])


def written(folder: Path, **columns: Any) -> Path:
    path = folder / "scores.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return path


def test_numbers_are_found_by_row_whatever_the_order(tmp_path: Path) -> None:
    inf = float("inf")
    path = written(tmp_path, row=[9, 0, 3, 1], quality=[0.5, None, inf, 7.0])
    column = read_added_columns([f"{path}:quality"])[0].of_rows(ROWS)
    assert isinstance(column, NumberColumn)
    assert np.array_equal(column.numbers, [np.nan, np.nan, np.nan, 0.5], equal_nan=True)
    assert (column.name, column.title) == ("quality", "quality")


def test_strings_and_booleans_are_categories(tmp_path: Path) -> None:
    path = written(tmp_path, row=[0, 2, 3], kind=["b", "a", None], good=[True, False, True])
    kind, good = (column.of_rows(ROWS) for column in read_added_columns([f"{path}:kind", f"{path}:good"]))
    assert isinstance(kind, CategoryColumn)
    assert isinstance(good, CategoryColumn)
    assert (list(kind.names), kind.codes.tolist()) == (["a", "b"], [1, 0, -1, -1])
    assert (list(good.names), good.codes.tolist()) == (["false", "true"], [1, 0, 1, -1])


def test_an_empty_file_gives_no_values(tmp_path: Path) -> None:
    path = written(tmp_path, row=pl.Series([], dtype=pl.Int64), quality=pl.Series([], dtype=pl.Float32))
    column = read_added_columns([f"{path}:quality"])[0].of_rows(ROWS)
    assert isinstance(column, NumberColumn)
    assert np.isnan(column.numbers).all()


@pytest.mark.parametrize(
    ("columns", "name", "words"),
    [
        ({"row": [1, 1], "q": [1, 2]}, "q", "row 1 is there more than once"),
        ({"row": [1, None], "q": [1, 2]}, "q", "has to be a whole number"),
        ({"row": ["a"], "q": [1]}, "q", "has to be a whole number"),
        ({"id": [1], "q": [1]}, "q", "no column row; expected"),
        ({"row": [1]}, "q", "no column q; expected"),
        ({"row": [1], "tokens": [1]}, "tokens", "already has a column tokens"),
        ({"row": [1], "q": [[1]]}, "q", "neither a number nor a category"),
        ({"row": range(MAX_CATEGORIES + 1), "q": [str(i) for i in range(MAX_CATEGORIES + 1)]}, "q", "1,001 different"),
    ],
)
def test_a_wrong_column_is_refused(tmp_path: Path, columns: dict[str, Any], name: str, words: str) -> None:
    path = written(tmp_path, **columns)
    with pytest.raises(UsageError, match=words):
        read_added_columns([f"{path}:{name}"])


@pytest.mark.parametrize("specification", ["scores.parquet", ":q", "scores.parquet:", ""])
def test_a_column_without_a_file_or_name_is_refused(specification: str) -> None:
    with pytest.raises(UsageError, match=r"expected --column FILE.parquet:NAME"):
        read_added_columns([specification])


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_text("no")
    for path in (bad, tmp_path / "missing.parquet"):
        with pytest.raises(UsageError, match=f"{path.name} cannot be read"):
            read_added_columns([f"{path}:q"])
