"""Columns that a user adds to the page from Parquet files: a number or a category for each row of the data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.page.columns import CategoryColumn, Column, NumberColumn
from embedkit.errors import UsageError

MAX_CATEGORIES = 1_000
RESERVED = ("source", "tokens", "turns", "distance", "agreement", "group")
"""Names that the page's own columns have."""
HOW = "expected --column FILE.parquet:NAME, a file with the columns row (position in the data set) and NAME"


@dataclass(frozen=True)
class AddedColumn:
    """Values by row. rows: positions in the data set, int64 (m,), ascending. values: Float64 or String (m,)."""

    name: str
    rows: npt.NDArray[np.int64]
    values: pl.Series

    def of_rows(self, rows: npt.NDArray[np.int64]) -> Column:
        """The column of the rows at some positions in the data set, int64 (n,). A row without a value has none."""
        at = np.minimum(np.searchsorted(self.rows, rows), max(len(self.rows) - 1, 0))
        is_known = self.rows[at] == rows if len(self.rows) else np.zeros(len(rows), bool)
        if self.values.dtype == pl.Float64:
            numbers = np.append(self.values.fill_null(np.nan).to_numpy(), np.nan)
            return NumberColumn(self.name, self.name, numbers[np.where(is_known, at, -1)])
        names = self.values.drop_nulls().unique().sort().to_list()
        codes_by_name = {name: code for code, name in enumerate(names)}
        codes = np.array([codes_by_name.get(value, -1) for value in self.values] + [-1], np.int32)
        return CategoryColumn(self.name, self.name, codes[np.where(is_known, at, -1)], names)


def read_added_columns(specifications: Sequence[str]) -> list[AddedColumn]:
    """Read the columns that `--column FILE.parquet:NAME` names.

    NaN and infinite numbers count as none. Strings, booleans and enums are categories, at most MAX_CATEGORIES.

    Raises:
        UsageError: a file or a column is missing or cannot be read, a row is there twice, a name is taken.
    """
    found: list[AddedColumn] = []
    for specification in specifications:
        place, _, name = specification.rpartition(":")
        if not place or not name:
            raise UsageError(f"--column {specification}: {HOW}")
        if name in RESERVED or name in {column.name for column in found}:
            raise UsageError(f"--column {specification}: the page already has a column {name}; rename it in the file")
        found.append(_read(specification, Path(place), name))
    return found


def _read(specification: str, path: Path, name: str) -> AddedColumn:
    try:
        frame = pl.scan_parquet(path, glob=False)
        names = frame.collect_schema().names()
        missing = [needed for needed in ("row", name) if needed not in names]
        if missing:
            raise UsageError(
                f"--column {specification}: the file has no column {' and no '.join(missing)}; {HOW}; "
                f"it has: {', '.join(names)}"
            )
        lines = frame.select("row", name).collect().sort("row")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"--column {specification}: {path} cannot be read: {error}; {HOW}") from None
    if not lines["row"].dtype.is_integer() or lines["row"].has_nulls():
        raise UsageError(f"--column {specification}: the column row has to be a whole number in each line; {HOW}")
    if lines["row"].is_duplicated().any():
        twice = lines.filter(pl.col("row").is_duplicated())["row"][0]
        raise UsageError(f"--column {specification}: row {twice} is there more than once")
    return AddedColumn(name, lines["row"].cast(pl.Int64).to_numpy(), _values(specification, lines[name]))


def _values(specification: str, values: pl.Series) -> pl.Series:
    """Float64 without infinite numbers, or String."""
    if values.dtype.is_numeric():
        numbers = values.cast(pl.Float64)
        return numbers.set(numbers.is_infinite().fill_null(value=False), None).fill_nan(None)
    if values.dtype not in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
        raise UsageError(f"--column {specification}: {values.dtype} is neither a number nor a category (a string)")
    names = values.cast(pl.String)
    if names.n_unique() > MAX_CATEGORIES:
        raise UsageError(
            f"--column {specification}: {names.n_unique():,} different strings; the page takes {MAX_CATEGORIES:,} "
            "categories at most; put the rare ones together"
        )
    return names
