"""Reads CSV and TSV: a row with the names of the columns, then rows of text. A block is the whole file.

Source: RFC 4180. A value in quotes may have separators, line ends, and quotes written twice. A field that is empty is
the text "", never null. Blank lines are no rows. TSV is the same with tabs.
"""

import csv
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv

from embedkit.data.arrow_columns import check_types, read_frames
from embedkit.data.columns import Columns, find_path
from embedkit.data.reader import (
    BATCH_BYTES,
    LISTED_ERRORS,
    PEEKED_ROWS,
    Block,
    IndexedFile,
    bad_rows,
    require_columns,
    require_once,
)
from embedkit.data.text_file import TextLayout, format_suffix, open_text, text_layout
from embedkit.documents import DataFile
from embedkit.errors import EmbedkitError

LONGEST_ROW = 1 << 30
"""Bytes of the longest row that is read. pyarrow parses whole rows only, and no more than 2 GB at a time."""
SEPARATORS = {".csv": ",", ".tsv": "\t"}
END = "\x1eembedkit: end of the file\x1e"
"""A row with this in every field is added to the text. It is not found if the quotes of the last row have no end."""


def identify(path: Path) -> DataFile:
    """Identity of a file: its size. `index_file` adds the sha256, which takes a pass over the file."""
    return DataFile(name=path.name, bytes=path.stat().st_size)


def column_names(path: Path) -> list[str]:
    """The fields of the first row. Empty if there is none. Raises EmbedkitError if they are not UTF-8."""
    return _Table(path).names


def check_columns(path: Path, columns: Columns) -> None:
    """Raise UsageError if a column is missing, is there twice, or is to be a field of a column."""
    names = column_names(path)
    if names:  # else the file has no rows
        require_once(path, names, columns)
        require_columns(path, names, columns)
        check_types(path, pa.schema([(name, pa.string()) for name in names]), columns)


def peek(path: Path, column: str) -> list[Any]:
    """The column's values in the first rows."""
    table = _Table(path)
    place = table.names.index(column)
    rows = islice(table.records(), 1, 1 + PEEKED_ROWS)
    return [fields[place] for _, fields in rows if place < len(fields)]


def index_file(path: Path, first_row: int) -> IndexedFile:
    """Count the rows, and find the sha256 of the file's bytes. Raises EmbedkitError as read_block."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    table = _Table(path)
    rows = sum(batch.num_rows for batch in table.batches([0]))
    blocks = (Block(first_row, rows, table.bytes, 0, 1),) if rows else ()
    return IndexedFile(path, blocks, sha256, table.layout)


def read_block(
    file: IndexedFile, block: Block, columns: Columns, wanted: npt.NDArray[np.int64]
) -> Iterator[pl.DataFrame]:
    """Stream the wanted rows. Raises EmbedkitError that lists the first lines that are no rows."""
    table = _Table(file.path, file.layout)
    paths = [find_path(table.names, name) for _, name in columns.named()]
    places = sorted({table.names.index(path[0]) for path in paths if path is not None})
    first = 0
    for batch in table.batches(places):
        low, high = np.searchsorted(wanted, [first, first + batch.num_rows])
        chosen = batch if high - low == batch.num_rows else batch.take(pa.array(wanted[low:high] - first))
        yield from read_frames(file.path, chosen, columns, block.first_row + wanted[low:high])
        first += batch.num_rows
        if high == len(wanted):
            return
    raise EmbedkitError(f"{file.path}: changed while it was read: it has fewer rows now; start again")


class _Table:
    """A file as a table. bytes: of its text, once all batches were read."""

    def __init__(self, path: Path, layout: TextLayout | None = None) -> None:
        self.path = path
        self.layout = layout or text_layout(path)
        self.names = next(self.records(), (0, []))[1]
        if not all(map(_is_unicode, self.names)):
            raise EmbedkitError(f"{path}: line 1: names of columns that are not UTF-8; convert the file")
        self.bytes = 0

    def batches(self, places: Sequence[int]) -> Iterator["pa.RecordBatch"]:
        """Stream the columns at some places, under their names. Raises EmbedkitError that lists the bad rows."""
        if not self.names:
            return
        held: pa.RecordBatch | None = None
        for batch in self._parsed(places):
            if held is not None:
                yield held
            held = batch
        if held is None or held.column(0)[-1].as_py() != END:
            raise self._bad_rows("the quotes of the last value have no end")
        yield held.slice(0, held.num_rows - 1)

    def _parsed(self, places: Sequence[int]) -> Iterator["pa.RecordBatch"]:
        """As batches, with the added row. Pieces of text become larger until the longest row fits into one."""
        done, size = 1, BATCH_BYTES  # the first row has the names
        while True:
            try:
                yield from self._parsed_from(done, size, places)
            except _LongRowError as error:
                done, size = error.done, size * 8
            else:
                return

    def _parsed_from(self, done: int, size: int, places: Sequence[int]) -> Iterator["pa.RecordBatch"]:
        """Parse in pieces of `size` bytes, without the first rows. Raises _LongRowError if a row is longer."""
        seen = 0
        with self._text(END) as stream:
            try:
                with pa.csv.open_csv(stream, *self._options(size, places)) as reader:  # else its thread lives on
                    for batch in reader:
                        if seen + batch.num_rows > done:
                            fresh = batch.slice(max(done - seen, 0))
                            done = seen + batch.num_rows
                            yield fresh.rename_columns([self.names[i] for i in places])
                        seen += batch.num_rows
            except pa.ArrowInvalid as error:
                if "straddling" in str(error) and size < LONGEST_ROW:
                    raise _LongRowError(done) from None
                if "CSV" in str(error) or "straddling" in str(error):
                    raise self._bad_rows(str(error)) from None
                raise
            self.bytes = stream.bytes

    def _options(self, size: int, places: Sequence[int]) -> tuple[Any, ...]:
        """Every value is text, whatever it looks like. Names are numbers here: real ones may repeat."""
        every = [f"f{i}" for i in range(len(self.names))]
        return (
            pa.csv.ReadOptions(use_threads=False, block_size=size, column_names=every),
            pa.csv.ParseOptions(delimiter=_separator(self.path), newlines_in_values=True),
            pa.csv.ConvertOptions(
                column_types=dict.fromkeys(every, pa.string()),
                include_columns=[every[i] for i in places],
                strings_can_be_null=False,
            ),
        )

    def records(self, end: str | None = None) -> Iterator[tuple[int, list[str]]]:
        """Every row as the number of its first line and its fields, of any number. Bytes that are not UTF-8 stay."""
        csv.field_size_limit(sys.maxsize)
        with self._text(end) as stream:
            text = io.TextIOWrapper(io.BufferedReader(stream), "utf-8", "surrogateescape", newline="")
            reader, line = csv.reader(text, delimiter=_separator(self.path)), 1
            for fields in reader:
                if fields:
                    yield line, fields
                line = reader.line_num + 1

    @contextmanager
    def _text(self, end: str | None) -> Iterator["_Ended"]:
        """The file's text, with a row of `end` after it."""
        row = "" if end is None else "\n" + _separator(self.path).join([end] * len(self.names)) + "\n"
        with open_text(self.path, self.layout) as stream:
            try:
                yield _Ended(stream, row.encode())
            except UnicodeDecodeError as error:
                raise EmbedkitError(
                    f"{self.path}: not {self.layout.encoding}, as its first bytes say: {error}; fix the file"
                ) from None

    def _bad_rows(self, problem: str) -> EmbedkitError:
        """The error that lists the first rows that cannot be read. problem: what is wrong if none is found."""
        found: list[str] = []
        last: tuple[int, list[str]] = (0, [])
        for last in self.records(END):
            line, fields = last
            if len(fields) != len(self.names) and END not in "".join(fields):
                found.append(f"line {line}: number of fields: {len(fields)}; in the first row: {len(self.names)}")
            elif not all(map(_is_unicode, fields)):
                found.append(f"line {line}: not UTF-8")
            if len(found) == LISTED_ERRORS:
                break
        else:
            if last[1] != [END] * len(self.names):
                found.append(f"line {last[0]}: the quotes of a value in the row that begins here have no end")
        return bad_rows(self.path, found or [problem], "row")


class _LongRowError(Exception):
    """A row is longer than the pieces that are parsed. done: how many rows are before it."""

    def __init__(self, done: int) -> None:
        super().__init__(done)
        self.done = done


class _Ended(io.RawIOBase):
    """A stream with more bytes after its end. bytes: how many were read of it."""

    def __init__(self, stream: BinaryIO, end: bytes) -> None:
        self._stream, self._end = stream, io.BytesIO(end)
        self.bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self.bytes += len(data)
        data = data or self._end.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _separator(path: Path) -> str:
    return SEPARATORS[format_suffix(path)]


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
