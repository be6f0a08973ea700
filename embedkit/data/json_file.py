"""Reads JSON files: one object per line, or one array of objects; also compressed, or in UTF-16.

A block is about a thousand rows. A file that can be read only from its start is one block.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.data.columns import Columns
from embedkit.data.json_chats import Row, decode_row, field_value, row_fields
from embedkit.data.json_rows import JsonRow, SplitError, elements, lines
from embedkit.data.reader import (
    BATCH_BYTES,
    LISTED_ERRORS,
    PEEKED_ROWS,
    Block,
    IndexedFile,
    bad_rows,
    require_columns,
)
from embedkit.data.row_frame import row_frame
from embedkit.data.text_file import TextLayout, open_text, text_layout
from embedkit.documents import DataFile
from embedkit.errors import EmbedkitError

BLOCK_ROWS = 1024
NEWLINE = b"\n"
NOT_A_ROW = (ValueError, RecursionError)
"""What decoding a row raises. Errors of msgspec and of UTF-8 are ValueErrors."""


def identify(path: Path) -> DataFile:
    """Identity of a file: its size. `index_file` adds the sha256, which takes a pass over the file."""
    return DataFile(name=path.name, bytes=path.stat().st_size)


def column_names(path: Path) -> list[str]:
    """Keys of the first rows, in order. A row that lacks a key has null in that column, as in Parquet."""
    return list(dict.fromkeys(key for fields in _peeked_rows(path) for key in fields))


def check_columns(path: Path, columns: Columns) -> None:
    """Raise UsageError if none of the first rows has a column. Types are checked row by row, when the row is read."""
    names = column_names(path)
    if names:  # else the file has no rows
        require_columns(path, names, columns)


def peek(path: Path, column: str) -> list[Any]:
    """The column's values in the first rows, as plain Python."""
    return [_readable(fields, column) for fields in _peeked_rows(path)]


def _readable(fields: Mapping[str, Any], column: str) -> Any:
    """A column's value, None if it has text that is not Unicode: only who reads the column must refuse it."""
    try:
        value = field_value(fields, column)
        json.dumps(value, ensure_ascii=False).encode()
    except NOT_A_ROW:
        return None
    return value


def index_file(path: Path, first_row: int) -> IndexedFile:
    """Find where every block begins, and the sha256 of the file's bytes, in one pass over it."""
    layout, digest = text_layout(path), hashlib.sha256()
    most_rows, most_bytes = (BLOCK_ROWS, BATCH_BYTES) if layout.is_plain else (sys.maxsize, sys.maxsize)
    blocks: list[Block] = []
    start: JsonRow | None = None
    rows = size = 0
    with open_text(path, layout, digest) as stream:
        for row in _rows(path, layout, stream):
            start, rows = (row, 1) if start is None else (start, rows + 1)
            size = row.offset + len(row.data) - start.offset
            if rows >= most_rows or size >= most_bytes:
                blocks.append(Block(first_row, rows, size, start.offset, start.line))
                first_row, start = first_row + rows, None
    if start is not None:
        blocks.append(Block(first_row, rows, size, start.offset, start.line))
    return IndexedFile(path, tuple(blocks), digest.hexdigest(), layout)


def read_block(
    file: IndexedFile, block: Block, columns: Columns, wanted: npt.NDArray[np.int64]
) -> Iterator[pl.DataFrame]:
    """Read the wanted rows of a block. Raises EmbedkitError that lists the file's first lines that are no rows."""
    assert file.layout is not None
    if file.layout.is_plain:
        rows = list(_rows_of_block(file, block))
        if len(rows) != block.rows:
            raise EmbedkitError(f"{file.path}: changed while it was read, at byte {block.index}; start again")
        yield row_frame([_decoded(file, rows[place], columns) for place in wanted], columns)
    else:
        with open_text(file.path, file.layout) as stream:
            yield from _frames(file, _rows(file.path, file.layout, stream), columns, wanted)


def _rows_of_block(file: IndexedFile, block: Block) -> Iterator[JsonRow]:
    """The rows of one block of a plain file."""
    with file.path.open("rb") as plain:
        plain.seek(block.index)
        data = plain.read(block.bytes)
    if _is_array(file.layout):
        return elements(BytesIO(data + b"]"), block.index, block.line, inside=True)
    return lines(BytesIO(data), block.index, block.line)


def _frames(
    file: IndexedFile, rows: Iterator[JsonRow], columns: Columns, wanted: npt.NDArray[np.int64]
) -> Iterator[pl.DataFrame]:
    """The wanted rows of a stream, in frames of about BATCH_BYTES. What comes after the last one is not read."""
    decoded: list[Row] = []
    taken = size = 0
    for place, row in enumerate(rows):
        if place == wanted[taken]:
            decoded.append(_decoded(file, row, columns))
            taken, size = taken + 1, size + len(row.data)
        if size >= BATCH_BYTES or taken == len(wanted):
            yield row_frame(decoded, columns)
            decoded, size = [], 0
        if taken == len(wanted):
            return
    raise EmbedkitError(f"{file.path}: changed while it was read: it has fewer rows now; start again")


def _decoded(file: IndexedFile, row: JsonRow, columns: Columns) -> Row:
    try:
        return decode_row(row.data, columns)
    except NOT_A_ROW:
        raise _bad_rows(file.path, file.layout, columns) from None


def _is_array(layout: TextLayout | None) -> bool:
    return layout is not None and layout.head.lstrip().startswith(b"[")


def _rows(path: Path, layout: TextLayout, stream: BinaryIO) -> Iterator[JsonRow]:
    """All rows of a file. Raises EmbedkitError if it is an array that cannot be cut into its elements."""
    start = layout.mark if layout.is_plain else 0
    try:
        yield from (elements if _is_array(layout) else lines)(stream, start)
    except SplitError as error:
        line, column = _place(path, layout, error.offset)
        raise EmbedkitError(f"{path}: line {line}, column {column}: {error}; fix the file") from None
    except UnicodeDecodeError as error:
        raise EmbedkitError(f"{path}: not {layout.encoding}, as its first bytes say: {error}; fix the file") from None


def _peeked_rows(path: Path) -> list[Mapping[str, Any]]:
    """The first rows, decoded as far as needed. Raises EmbedkitError as read_block."""
    layout = text_layout(path)
    with open_text(path, layout) as stream:
        try:
            return [row_fields(row.data) for row in islice(_rows(path, layout, stream), PEEKED_ROWS)]
        except NOT_A_ROW:
            pass
    raise _bad_rows(path, layout, None)


def _bad_rows(path: Path, layout: TextLayout | None, columns: Columns | None) -> EmbedkitError:
    """The error that lists the first rows of a file that cannot be read. columns: None for any."""
    assert layout is not None
    found: list[str] = []
    with open_text(path, layout) as stream:
        for number, row in enumerate(_rows(path, layout, stream)):
            try:
                row_fields(row.data) if columns is None else decode_row(row.data, columns)
            except NOT_A_ROW as error:
                if number == 0 and row.data.strip() == b"{":
                    return EmbedkitError(
                        f"{path}: line {row.line}: an object that does not end on its line; write each object on one "
                        "line, or all in one array"
                    )
                found.append(f"{_place_in_row(row, error)}: not a readable row: {error}")
                if len(found) == LISTED_ERRORS:
                    break
    if not found:
        return EmbedkitError(f"{path}: changed while it was read; start again")
    return bad_rows(path, found, "line")


def _place_in_row(row: JsonRow, error: BaseException) -> str:
    """Line and column of what is wrong in a row, as far as the error says it."""
    byte = re.search(r"\(byte (\d+)\)", str(error))
    offset = error.start if isinstance(error, UnicodeDecodeError) else int(byte[1]) if byte else None
    if offset is None:
        return f"line {row.line}"
    before = row.data.rstrip()[:offset]  # what ends too early is wrong at its end, and not on the next line
    start = before.rfind(b"\n") + 1
    return f"line {row.line + before.count(NEWLINE)}, column {len(before[start:].decode(errors='replace')) + 1}"


def _place(path: Path, layout: TextLayout, offset: int) -> tuple[int, int]:
    """Line and column of an offset in a file's text."""
    start = layout.mark if layout.is_plain else 0
    line, column = 1, 1
    with open_text(path, layout) as stream:
        for number, data in enumerate(stream, 1):
            if start <= offset:
                line, column = number, len(data[: offset - start].decode(errors="replace")) + 1
            start += len(data)
    return line, column
