"""Chooses the rows of a part whose token ids are compared with the reference tokenizer's, of those tokenized here.

The reference takes about forty times longer per byte than prepare, so the rows are few:

- the longest rows, where a tokenizer that cuts or chokes shows first: one for each LONGEST_OF rows, begun ones too;
- rows in a random order that depends on their numbers alone: RUN_ROWS in the run, and in the part at least PART_ROWS
  and one of ONE_OF. Beyond those they stop at a number of bytes, since texts may be long.

docs/guarantees.md says how probably a share of differing rows is found.
"""

from collections.abc import Sequence

import polars as pl

from embedkit.data import row_hash
from embedkit.documents import View

PART_ROWS = 8
ONE_OF = 512
RUN_ROWS = 512
RUN_BYTES = 64 << 20
"""Text of the random rows of a run, beyond the least of each part: 512 rows of 128 KiB."""
ORDER, SIZE = "random order", "bytes of all views"
"""Columns beside those of the views, which may have any name without spaces."""
LONGEST_OF = 4096
LONGEST_BYTES = 4 << 20
"""A row over this is none of the longest: no model takes so many tokens, and the reference needs seconds for it."""


def least_rows(rows: int) -> int:
    """How many random rows are audited in a part of so many rows, whatever their bytes."""
    return max(PART_ROWS, -(-rows // ONE_OF))


def rows_per_part(parts: int, rows: int) -> int:
    """How many random rows are audited in a part of so many rows, of a run of so many parts, if the bytes allow it."""
    return max(least_rows(rows), -(-RUN_ROWS // parts))


def bytes_per_part(parts: int) -> int:
    """How many bytes the random rows of a part may have, beyond the least, in a run of so many parts."""
    return RUN_BYTES // parts


class AuditedRows:
    """Picks a part's audited rows while its texts pass by, in any batches."""

    def __init__(self, part: int, rows: int, parts: int, views: Sequence[View]) -> None:
        """part: its number. rows: how many it has. parts: how many the run has."""
        self._part = part
        self._longest_rows = -(-rows // LONGEST_OF)
        self._least = least_rows(rows)
        self._count = rows_per_part(parts, rows)
        self._bytes = bytes_per_part(parts)
        self._views = list(views)
        texts: dict[str, type[pl.DataType]] = dict.fromkeys(self._views, pl.String)
        self._longest = pl.DataFrame(schema={"row": pl.Int64, **texts, SIZE: pl.UInt32, ORDER: pl.UInt64})
        self._random = self._longest

    def add(self, texts: pl.DataFrame) -> None:
        """Take what may be audited from a batch: a column `row`, and one of texts for each view."""
        size = pl.sum_horizontal(pl.col(view).str.len_bytes() for view in self._views).alias(SIZE)
        order = pl.Series(ORDER, row_hash(self._part, texts["row"].to_numpy()), dtype=pl.UInt64)
        sized = texts.select("row", *self._views, size).with_columns(order)
        self._random = pl.concat([self._random, sized]).sort(ORDER, "row").head(self._count)
        self._longest = self._longest_of(pl.concat([self._longest, self._longest_of(sized)]))

    def chosen(self) -> pl.DataFrame:
        """The rows to audit, with their texts: the longest first, then the random ones in their order."""
        place = pl.int_range(pl.len())
        fits = (place < self._least) | (pl.col(SIZE).cum_sum() <= self._bytes)
        both = pl.concat([self._longest, self._random.filter(fits)]).select("row", *self._views)
        return both.unique("row", maintain_order=True)

    def _longest_of(self, sized: pl.DataFrame) -> pl.DataFrame:
        """The longest rows of at most LONGEST_BYTES, of equal ones the first, in that order."""
        fitting = sized.lazy().filter(pl.col(SIZE) <= LONGEST_BYTES)
        return fitting.sort(SIZE, "row", descending=[True, False]).head(self._longest_rows).collect()
