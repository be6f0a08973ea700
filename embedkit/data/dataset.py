"""The data set as a sequence of rows: identify its files, stream any rows.

`row` is the 0-based position of a row in all files together, in order. It never changes. Each file is a list of
blocks, the smallest pieces that can be read alone. Each format has a reader; reader.py says what it must provide.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.data import arrow_file, csv_file, json_file, parquet
from embedkit.data.columns import SOURCE_COLUMN, Columns, text_column
from embedkit.data.content import HEAD_BYTES, explain_content
from embedkit.data.reader import Block, IndexedFile, Reader
from embedkit.data.text_file import COMPRESSED, format_suffix, text_layout
from embedkit.documents import DataFile
from embedkit.errors import UsageError

READERS: dict[str, Reader] = {
    ".parquet": parquet,
    ".pq": parquet,
    ".arrow": arrow_file,
    ".feather": arrow_file,
    ".ipc": arrow_file,
    ".jsonl": json_file,
    ".ndjson": json_file,
    ".json": json_file,
    ".csv": csv_file,
    ".tsv": csv_file,
}
"""The reader of each file format, by suffix. The suffix of a file may have capital letters."""
TEXT: tuple[Reader, ...] = (json_file, csv_file)
"""Readers of text, which may be compressed."""
MAGIC: dict[Reader, tuple[bytes, ...]] = {parquet: (b"PAR1",), arrow_file: arrow_file.MAGIC}
"""How files of the other formats begin."""
READABLE = (
    ".parquet, .pq, .arrow, .feather, .ipc, .jsonl, .ndjson, .json, .csv and .tsv, the last five also as .gz, .zst, "
    ".bz2 or .xz,"
)
"""READERS in words, for messages."""


@dataclass(frozen=True)
class Dataset:
    """All files of a data set, in order, with the columns that are read.

    path_columns: per file, the values of columns that are not in the file but come from its path.
    """

    files: tuple[IndexedFile, ...]
    columns: Columns
    path_columns: tuple[dict[str, str], ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return sum(block.rows for file in self.files for block in file.blocks)

    def values_from_path(self, file: int) -> dict[str, str]:
        """The values of a file's columns that come from its path."""
        return self.path_columns[file] if self.path_columns else {}


def identify(path: Path) -> DataFile:
    """Identity of a data file, without reading all of it. Raises EmbedkitError if the file is damaged."""
    return _fitting_reader(path).identify(path)


def column_names(path: Path) -> list[str]:
    """Names of a file's columns, in order. Raises EmbedkitError if it cannot be read."""
    return _fitting_reader(path).column_names(path)


def peek(path: Path, column: str) -> list[Any]:
    """A column's values in a file's first rows, as plain Python."""
    return _fitting_reader(path).peek(path, column)


def check_columns(path: Path, columns: Columns) -> None:
    """Raise UsageError if the file lacks a column or has it with a type that cannot be read."""
    for option, name in columns.named():
        if any(unicodedata.category(char) == "Cs" for char in name):
            raise UsageError(f"{option} {name!a}: not UTF-8, which names of columns are")
    _fitting_reader(path).check_columns(path, columns)


def open_dataset(paths: Sequence[Path], columns: Columns, path_columns: tuple[dict[str, str], ...] = ()) -> Dataset:
    """Index the files. Of Parquet only footers are read; text is read once, for offsets of rows and sha256."""
    files: list[IndexedFile] = []
    first_row = 0
    for path in paths:
        file = _fitting_reader(path).index_file(path, first_row)
        first_row += sum(block.rows for block in file.blocks)
        files.append(file)
    return Dataset(tuple(files), columns, path_columns)


def read_sources(dataset: Dataset) -> Iterator[pl.DataFrame]:
    """Stream (row: Int64, dataset_source: String) of the whole data set."""
    yield from _read(dataset, dataset.columns.source_only(), None)


def read_rows(dataset: Dataset, rows: npt.NDArray[np.int64]) -> Iterator[pl.DataFrame]:
    """Stream the given ascending rows: row (Int64), dataset_source (String), and the other columns of row_frame.py.

    Blocks without a wanted row are not read. A frame has about 32 MB of data at most.
    """
    yield from _read(dataset, dataset.columns, rows)


def _read(dataset: Dataset, columns: Columns, rows: npt.NDArray[np.int64] | None) -> Iterator[pl.DataFrame]:
    """Stream these rows, or all."""
    for number, file in enumerate(dataset.files):
        from_path = dataset.values_from_path(number)
        in_file = columns.without(from_path)
        for block in file.blocks:
            here = np.arange(block.first_row, block.first_row + block.rows)
            if rows is not None:
                low, high = np.searchsorted(rows, [block.first_row, block.first_row + block.rows])
                here = rows[low:high]
            if not len(here):
                continue
            done = 0
            for frame in _frames(file, block, in_file, here - block.first_row):
                yield _finish(frame, here[done : done + frame.height], columns, from_path)
                done += frame.height


def _frames(file: IndexedFile, block: Block, columns: Columns, wanted: npt.NDArray[np.int64]) -> Iterator[pl.DataFrame]:
    """A reader's frames; or, if nothing is in the file, one with the rows alone."""
    if columns.named():
        return _reader(file.path).read_block(file, block, columns, wanted)
    return iter([pl.DataFrame({SOURCE_COLUMN: pl.Series([None] * len(wanted), dtype=pl.String)})])


def _finish(
    frame: pl.DataFrame, rows: npt.NDArray[np.int64], columns: Columns, from_path: dict[str, str]
) -> pl.DataFrame:
    """Add the numbers of the rows and the values from the path. The source is named as in a run."""
    made = [pl.Series("row", rows)]
    if columns.source is not None:
        sources = [from_path[columns.source]] * len(rows) if columns.source in from_path else frame[SOURCE_COLUMN]
        made.append(pl.Series("dataset_source", sources, dtype=pl.String).fill_null(""))
    made += [pl.Series(text_column(name), [from_path[name]] * len(rows)) for name in columns.texts if name in from_path]
    return frame.drop(SOURCE_COLUMN, strict=False).with_columns(made)


def row_bytes(dataset: Dataset) -> npt.NDArray[np.float32]:
    """Uncompressed bytes per row, float32 (rows,): the mean of the row's block."""
    blocks = [block for file in dataset.files for block in file.blocks]
    means = np.array([block.bytes / max(block.rows, 1) for block in blocks], np.float32)
    return np.repeat(means, [block.rows for block in blocks])


def has_reader(path: PurePath) -> bool:
    """Whether files with such a name are read."""
    return _format(path) is not None


def bare_name(path: PurePath) -> str:
    """A file's name without the suffixes of its format and its compression."""
    name = path.name
    if path.suffix.lower() in COMPRESSED:
        name = path.stem
    return PurePath(name).stem if has_reader(path) else path.stem


def is_parquet(path: Path) -> bool:
    """Whether a file is read as Parquet."""
    return _reader(path) is parquet


def _reader(path: Path) -> Reader:
    """The reader of a file's format. Raises UsageError if there is none."""
    reader = _format(path)
    if reader is None:
        raise UsageError(f"--dataset {path}: only {READABLE} files are read")
    return reader


def _fitting_reader(path: Path) -> Reader:
    """As _reader, of a file that is what its name says. Raises UsageError if its first bytes say something else."""
    reader = _reader(path)
    is_text = reader in TEXT
    if is_text:
        head = text_layout(path).head
    else:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    problem = explain_content(head, text=is_text, expected=MAGIC.get(reader, ()))
    if problem:
        raise UsageError(f"{path}: {problem}")
    return reader


def _format(path: PurePath) -> Reader | None:
    """The reader of files with such a name. Only text is also read compressed."""
    reader = READERS.get(format_suffix(path))
    return reader if path.suffix.lower() not in COMPRESSED or reader in TEXT else None
