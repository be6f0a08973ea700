"""Reads JSONL files: one JSON object per line. Blank lines are not rows. A block is about a thousand lines."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from embedkit.data.reader import BATCH_BYTES, MESSAGES, Block, IndexedFile, require_columns
from embedkit.documents import UNREADABLE, DataFile
from embedkit.errors import EmbedkitError

BLOCK_LINES = 1024
PEEKED_LINES = 100


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | None = None


def identify(path: Path) -> DataFile:
    """Identity of a file: its size. `index_file` adds the sha256, which takes a pass over the file."""
    return DataFile(name=path.name, bytes=path.stat().st_size)


def check_columns(path: Path, messages_column: str, source_column: str) -> None:
    """Raise UsageError if none of the first rows has a column. Types are checked row by row, when the row is read."""
    names = _first_keys(path)
    if names:  # else the file has no rows
        require_columns(path, names, messages_column, source_column)


def index_file(path: Path, first_row: int) -> IndexedFile:
    """Find where every block of lines begins, and the sha256 of the bytes, in one pass over the file."""
    digest = hashlib.sha256()
    blocks: list[Block] = []
    offset = rows = start = 0
    line_number = first_line = 1
    with path.open("rb") as file:
        for line in file:
            digest.update(line)
            offset += len(line)
            line_number += 1
            rows += not line.isspace()
            if rows == BLOCK_LINES or offset - start >= BATCH_BYTES:
                if rows:
                    blocks.append(Block(first_row, rows, offset - start, start, first_line))
                first_row += rows
                start, first_line, rows = offset, line_number, 0
    if rows:
        blocks.append(Block(first_row, rows, offset - start, start, first_line))
    return IndexedFile(path, tuple(blocks), digest.hexdigest())


def read_block(
    file: IndexedFile, block: Block, source_column: str, messages_column: str | None
) -> Iterator[pl.DataFrame]:
    """Read a block's lines as one frame. Raises EmbedkitError naming the first line that is not a row."""
    types: dict[str, Any] = {source_column: str | None}
    if messages_column is not None:
        types = {messages_column: list[_Message | None] | None} | types
    # Column names may be any text, so the struct's fields have names of their own.
    fields = {column: f"column_{i}" for i, column in enumerate(types)}
    row_type = msgspec.defstruct(
        "Row",
        [(fields[column], kind, None) for column, kind in types.items()],
        rename={field: column for column, field in fields.items()},
    )
    rows = _read_lines(file, block, msgspec.json.Decoder(row_type))
    values = {column: [getattr(row, field) for row in rows] for column, field in fields.items()}
    if messages_column is not None:
        values[messages_column] = [
            None if row is None else [None if m is None else {"role": m.role, "content": m.content} for m in row]
            for row in values[messages_column]
        ]
    schema = {column: MESSAGES if column == messages_column else pl.String() for column in types}
    yield pl.DataFrame(values, schema=schema)


def _read_lines(file: IndexedFile, block: Block, decoder: msgspec.json.Decoder[Any]) -> list[Any]:
    """Decode the rows of a block. Raises EmbedkitError if their number is not that of the index."""
    with file.path.open("rb") as lines:
        lines.seek(block.index)
        data = lines.read(block.bytes)
    rows = [
        _decode_line(decoder, line, file.path, block.line + i)
        for i, line in enumerate(data.split(b"\n"))
        if line.strip()
    ]
    if len(rows) != block.rows:
        raise EmbedkitError(f"{file.path}: changed while it was read, at byte {block.index}; start again")
    return rows


def _first_keys(path: Path) -> set[str]:
    """Keys of the first rows. A row that lacks a key has null in that column, as in Parquet."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    keys: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(islice(file, PEEKED_LINES), 1):
            if not line.isspace():
                keys |= set(_decode_line(decoder, line, path, number))
    return keys


def _decode_line(decoder: msgspec.json.Decoder[Any], line: bytes, path: Path, number: int) -> Any:
    try:
        return decoder.decode(line)
    except UNREADABLE as error:
        raise EmbedkitError(f"{path}: line {number}: not a readable row: {error}; fix or remove the line") from None
