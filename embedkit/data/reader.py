"""What every reader of a file format provides, and the types that readers share.

A reader is a module with the functions of `Reader`, such as parquet.py. To add a format, write such a module and enter
its suffix in `READERS` of dataset.py.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.data.columns import Columns, find_path
from embedkit.data.text_file import TextLayout
from embedkit.documents import DataFile
from embedkit.errors import EmbedkitError, UsageError

BATCH_BYTES = 8 << 20
"""About how many bytes of data a reader keeps in memory at a time."""
PEEKED_ROWS = 100
"""How many of the first rows say what a file has."""
LISTED_ERRORS = 10
"""How many of the first bad rows an error lists."""


@dataclass(frozen=True)
class Block:
    """Rows [first_row, first_row + rows) of the data set: the smallest piece of a file that can be read alone.

    Parquet: `index` is the first row group and `count` how many there are. Arrow: the same with record batches. Text:
    `index` is the byte offset and `line` the 1-based number of the first line. `bytes` is the uncompressed size.
    """

    first_row: int
    rows: int
    bytes: int
    index: int
    line: int = 0
    count: int = 1


@dataclass(frozen=True)
class IndexedFile:
    """One file and its blocks in order.

    sha256: of the file's bytes, None for Parquet. layout: of a file of text.
    """

    path: Path
    blocks: tuple[Block, ...]
    sha256: str | None
    layout: TextLayout | None = None


class Reader(Protocol):
    """Reads files of one format. A module with these functions is a reader."""

    def identify(self, path: Path) -> DataFile:
        """Identity of a file, without reading all of it. Raises EmbedkitError if the file is damaged."""
        ...

    def column_names(self, path: Path) -> list[str]:
        """Names of the columns, in the file's order. Empty if it has no rows that name them."""
        ...

    def check_columns(self, path: Path, columns: Columns) -> None:
        """Raise UsageError if a column is missing or has a type that cannot be read."""
        ...

    def peek(self, path: Path, column: str) -> list[Any]:
        """A column's values in the first rows, as plain Python."""
        ...

    def index_file(self, path: Path, first_row: int) -> IndexedFile:
        """Find the blocks of a file whose first row is `first_row` of the data set."""
        ...

    def read_block(
        self, file: IndexedFile, block: Block, columns: Columns, wanted: npt.NDArray[np.int64]
    ) -> Iterator[pl.DataFrame]:
        """Stream rows of a block in order, with the columns of row_frame.py, in frames of about BATCH_BYTES.

        wanted: ascending positions in the block, int64 (n,), at least one.

        Raises EmbedkitError naming the file and the row, line or row group that cannot be read.
        """
        ...


def require_columns(path: Path, names: Collection[str], columns: Columns) -> None:
    """Raise UsageError if a column is not among the file's names, or one is used for two things."""
    for option, name in columns.named():
        if find_path(names, name) is None:
            raise UsageError(f"{path}: no column {name!r} ({option}); there are: {', '.join(sorted(names))}")
    if columns.messages is not None and columns.messages == columns.source:
        raise UsageError(f"{path}: --messages-column and --source-column are both {columns.source!r}; name two columns")


def bad_rows(path: Path, found: Sequence[str], row: str) -> EmbedkitError:
    """The error that lists bad rows of a file.

    found: where each is and what is wrong, at most LISTED_ERRORS, at least one. row: what the format calls a row.
    """
    if len(found) == 1:
        return EmbedkitError(f"{path}: {found[0]}; fix or remove the {row}")
    some = "the first of them" if len(found) == LISTED_ERRORS else f"{len(found)} in the file"
    listed = "\n  ".join(found)
    return EmbedkitError(f"{path}: {row}s that cannot be read, {some}; fix or remove them:\n  {listed}")


def require_once(path: Path, names: Sequence[str], columns: Columns) -> None:
    """Raise UsageError if a column that is read is there twice."""
    for _, column in columns.named():
        name = (find_path(names, column) or [column])[0]
        if names.count(name) > 1:
            raise UsageError(f"{path}: it has {names.count(name)} columns named {name!r}; rename all but one")
