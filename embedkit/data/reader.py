"""What every reader of a file format provides, and the types that readers share.

A reader is a module with the functions of `Reader`: parquet.py and jsonl.py are two. To add a format, write such a
module and enter its suffix in `READERS` of dataset.py.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from embedkit.documents import DataFile
from embedkit.errors import UsageError

BATCH_BYTES = 8 << 20
"""About how many bytes of data a reader keeps in memory at a time."""

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
"""Type of the messages column after reading. Further fields of a message are ignored."""

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields that hold a message's reasoning apart from its content.

DeepSeek and vLLM write reasoning_content, OpenRouter and later vLLM reasoning, gpt-oss and Ollama thinking.
"""
PART_FIELDS = ("text", "thinking")
"""Fields with the text of a part, where a reasoning is a list of parts, as OpenAI and Anthropic write content."""
BLANK_LINE = "\n\n"
"""Stands between the parts of a reasoning when they are joined."""
MESSAGES_WITH_REASONING = pl.List(pl.Struct(dict.fromkeys(("role", "content", *REASONING_FIELDS), pl.String)))
"""Type of the messages column after reading for a run that looks for reasoning. Its last fields may be missing."""

MESSAGES_COLUMN, SOURCE_COLUMN = "messages", "source"
"""Names of the columns that readers yield, whatever the file calls them.

A file's names are any text. In an expression of polars, some would mean different columns: `*`, `^row$`, `row`.
"""


@dataclass(frozen=True)
class Block:
    """Rows [first_row, first_row + rows) of the data set: the smallest piece of a file that can be read alone.

    Parquet: `index` is the row group. JSONL: `index` is the byte offset and `line` the 1-based number of
    the first line. `bytes` is the uncompressed size.
    """

    first_row: int
    rows: int
    bytes: int
    index: int
    line: int = 0


@dataclass(frozen=True)
class IndexedFile:
    """One file and its blocks in order. `sha256` is that of the bytes for JSONL, None for Parquet."""

    path: Path
    blocks: tuple[Block, ...]
    sha256: str | None


class Reader(Protocol):
    """Reads files of one format. A module with these functions is a reader."""

    def identify(self, path: Path) -> DataFile:
        """Identity of a file, without reading all of it. Raises EmbedkitError if the file is damaged."""
        ...

    def check_columns(self, path: Path, messages_column: str, source_column: str, *, reasoning: bool) -> None:
        """Raise UsageError if a column is missing or has the wrong type; with `reasoning`, also its fields."""
        ...

    def index_file(self, path: Path, first_row: int) -> IndexedFile:
        """Find the blocks of a file whose first row is `first_row` of the data set."""
        ...

    def read_block(
        self, file: IndexedFile, block: Block, source_column: str, messages_column: str | None, *, reasoning: bool
    ) -> Iterator[pl.DataFrame]:
        """Stream the block's rows in order, as MESSAGES_COLUMN and SOURCE_COLUMN.

        `source_column` and `messages_column` are the file's names. Messages are not read if theirs is None.
        With `reasoning`, their REASONING_FIELDS are read too.
        Raises EmbedkitError naming the file and the row, line or row group that cannot be read.
        """
        ...


def require_columns(path: Path, names: Collection[str], messages_column: str, source_column: str) -> None:
    """Raise UsageError if one of the two columns is not among the file's names."""
    for option, name in (("--messages-column", messages_column), ("--source-column", source_column)):
        if name not in names:
            raise UsageError(f"{path}: no column {name!r} ({option}); there are: {', '.join(sorted(names))}")
