"""The data set as a sequence of rows: identify its files, stream any rows.

`row` is the 0-based position of a row in all files together, in order. It never changes. Each file is a list of
blocks, the smallest pieces that can be read alone. The formats are in parquet.py and jsonl.py; reader.py says what a
format must provide.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.data import jsonl, parquet
from embedkit.data.messages import messages_expression
from embedkit.data.reader import MESSAGES_COLUMN, SOURCE_COLUMN, Block, IndexedFile, Reader
from embedkit.documents import DataFile
from embedkit.errors import UsageError

READERS: dict[str, Reader] = {".parquet": parquet, ".pq": parquet, ".jsonl": jsonl, ".ndjson": jsonl}
"""The reader of each file format, by suffix. The suffix of a file may have capital letters."""
READABLE = ".parquet, .pq, .jsonl and .ndjson"
"""READERS in words, for messages."""


@dataclass(frozen=True)
class Dataset:
    """All files of a data set, in order, with the two columns that are read.

    reasoning: whether the messages are read with REASONING_FIELDS.
    """

    files: tuple[IndexedFile, ...]
    messages_column: str
    source_column: str
    reasoning: bool = False

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return sum(block.rows for file in self.files for block in file.blocks)


def identify(path: Path) -> DataFile:
    """Identity of a data file, without reading all of it. Raises EmbedkitError if the file is damaged."""
    return _reader(path).identify(path)


def check_columns(path: Path, messages_column: str, source_column: str, *, reasoning: bool = False) -> None:
    """Raise UsageError if the file lacks a column or has it with a wrong type.

    With `reasoning`, also if the type of a field of REASONING_FIELDS can hold no text.
    """
    for option, name in (("--messages-column", messages_column), ("--source-column", source_column)):
        if any(unicodedata.category(char) == "Cs" for char in name):
            raise UsageError(f"{option} {name!a}: not UTF-8, which names of columns are")
    _reader(path).check_columns(path, messages_column, source_column, reasoning=reasoning)


def open_dataset(
    paths: Sequence[Path], messages_column: str, source_column: str, *, reasoning: bool = False
) -> Dataset:
    """Index the files. Of Parquet only footers are read; JSONL is read once, for line offsets and sha256."""
    files: list[IndexedFile] = []
    first_row = 0
    for path in paths:
        file = _reader(path).index_file(path, first_row)
        first_row += sum(block.rows for block in file.blocks)
        files.append(file)
    return Dataset(tuple(files), messages_column, source_column, reasoning)


def read_sources(dataset: Dataset) -> Iterator[pl.DataFrame]:
    """Stream (row: Int64, dataset_source: String) of the whole data set."""
    for file in dataset.files:
        for block in file.blocks:
            frames = _reader(file.path).read_block(file, block, dataset.source_column, None, reasoning=False)
            for frame in _number_rows(frames, block):
                yield frame.select("row", dataset_source=_source_expression())


def read_rows(dataset: Dataset, rows: npt.NDArray[np.int64]) -> Iterator[pl.DataFrame]:
    """Stream (row: Int64, messages, dataset_source: String) of the given ascending rows.

    Blocks without a wanted row are not read. A frame has about 32 MB of data at most.
    """
    for file in dataset.files:
        for block in file.blocks:
            low, high = np.searchsorted(rows, [block.first_row, block.first_row + block.rows])
            if low == high:
                continue
            frames = _reader(file.path).read_block(
                file, block, dataset.source_column, dataset.messages_column, reasoning=dataset.reasoning
            )
            for frame in _number_rows(frames, block, last_row=int(rows[high - 1])):
                wanted = frame
                if high - low < block.rows:
                    wanted = frame.filter(pl.col("row").is_in(pl.Series(rows[low:high]).implode()))
                if wanted.height:
                    yield wanted.select(
                        "row",
                        messages=messages_expression(MESSAGES_COLUMN, frame.schema[MESSAGES_COLUMN], dataset.reasoning),
                        dataset_source=_source_expression(),
                    )


def row_bytes(dataset: Dataset) -> npt.NDArray[np.float32]:
    """Uncompressed bytes per row, float32 (rows,): the mean of the row's block."""
    blocks = [block for file in dataset.files for block in file.blocks]
    means = np.array([block.bytes / max(block.rows, 1) for block in blocks], np.float32)
    return np.repeat(means, [block.rows for block in blocks])


def has_reader(path: PurePath) -> bool:
    """Whether files with such a name are read."""
    return path.suffix.lower() in READERS


def is_parquet(path: Path) -> bool:
    """Whether a file is read as Parquet."""
    return _reader(path) is parquet


def _reader(path: Path) -> Reader:
    """The reader of a file's format. Raises UsageError if there is none."""
    if not has_reader(path):
        raise UsageError(f"--dataset {path}: only {READABLE} files are read")
    return READERS[path.suffix.lower()]


def _number_rows(frames: Iterator[pl.DataFrame], block: Block, last_row: int | None = None) -> Iterator[pl.DataFrame]:
    """Add the column `row` to the frames of a block. Stop after the frame that has last_row."""
    first = block.first_row
    for frame in frames:
        yield frame.with_columns(pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias("row"))
        first += frame.height
        if last_row is not None and first > last_row:
            return


def _source_expression() -> pl.Expr:
    return pl.col(SOURCE_COLUMN).cast(pl.String).fill_null("")
