"""Reads JSONL files: one JSON object per line. Blank lines are not rows. A block is about a thousand lines."""

import hashlib
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from embedkit.data.reader import (
    BATCH_BYTES,
    BLANK_LINE,
    MESSAGES,
    MESSAGES_COLUMN,
    MESSAGES_WITH_REASONING,
    PART_FIELDS,
    REASONING_FIELDS,
    SOURCE_COLUMN,
    Block,
    IndexedFile,
    require_columns,
)
from embedkit.documents import UNREADABLE, DataFile
from embedkit.errors import EmbedkitError, UsageError

BLOCK_LINES = 1024
PEEKED_LINES = 100


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | None = None


class _Part(msgspec.Struct):
    """A part of a reasoning that is a list. Its text is in one of PART_FIELDS."""

    text: str | msgspec.UnsetType | None = msgspec.UNSET
    thinking: str | msgspec.UnsetType | None = msgspec.UNSET

    def __post_init__(self) -> None:
        """Refuse a part whose text is elsewhere."""
        if self.text is self.thinking is msgspec.UNSET:
            raise ValueError(f"a part of a message's reasoning has no {' or '.join(PART_FIELDS)}")


_Reasoning = str | list[str | _Part | None] | bool | int | float | None


class _ReasoningMessage(_Message):
    reasoning_content: _Reasoning = None
    reasoning: _Reasoning = None
    thinking: _Reasoning = None


OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
"""A line as its keys and their undecoded values. A struct would do it at once, but takes not every text as a key."""
CHAT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[_Message | None] | None)
REASONING_CHAT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[_ReasoningMessage | None] | None)
SOURCE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(str | None)
NULL = msgspec.Raw(b"null")
_Column = tuple[str, msgspec.json.Decoder[Any]]


def identify(path: Path) -> DataFile:
    """Identity of a file: its size. `index_file` adds the sha256, which takes a pass over the file."""
    return DataFile(name=path.name, bytes=path.stat().st_size)


def check_columns(path: Path, messages_column: str, source_column: str, *, reasoning: bool) -> None:
    """Raise UsageError if none of the first rows has a column. Types are checked row by row, when the row is read."""
    if messages_column == source_column:
        raise UsageError(f"{path}: --messages-column and --source-column are both {source_column!r}; name two columns")
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
    file: IndexedFile, block: Block, source_column: str, messages_column: str | None, *, reasoning: bool
) -> Iterator[pl.DataFrame]:
    """Read a block's lines as one frame. Raises EmbedkitError naming the first line that is not a row."""
    decoders: dict[str, _Column] = {SOURCE_COLUMN: (source_column, SOURCE)}
    if messages_column is not None:
        decoders = {MESSAGES_COLUMN: (messages_column, REASONING_CHAT if reasoning else CHAT)} | decoders
    rows = _read_lines(file, block, decoders.values())
    values = {name: [row[i] for row in rows] for i, name in enumerate(decoders)}
    if messages_column is not None:
        as_dict = _reasoning_message if reasoning else _message
        values[MESSAGES_COLUMN] = [
            None if row is None else [None if m is None else as_dict(m) for m in row] for row in values[MESSAGES_COLUMN]
        ]
    messages = MESSAGES_WITH_REASONING if reasoning else MESSAGES
    schema = {name: messages if name == MESSAGES_COLUMN else pl.String() for name in decoders}
    yield pl.DataFrame(values, schema=schema)


def _message(message: _Message) -> dict[str, str | None]:
    return {"role": message.role, "content": message.content}


def _reasoning_message(message: _ReasoningMessage) -> dict[str, str | None]:
    return _message(message) | {name: _reasoning_text(getattr(message, name)) for name in REASONING_FIELDS}


def _reasoning_text(value: _Reasoning) -> str | None:
    """The text of a reasoning: a list's parts joined by a blank line, None for a flag or a number."""
    if isinstance(value, list):
        texts = [_part_text(part) for part in value]
        return BLANK_LINE.join(text for text in texts if text)
    return value if isinstance(value, str) else None


def _part_text(part: str | _Part | None) -> str | None:
    if isinstance(part, _Part):
        return part.text or part.thinking or None
    return part


def _read_lines(file: IndexedFile, block: Block, columns: Collection[_Column]) -> list[list[Any]]:
    """The columns' values per row. Raises EmbedkitError if the number of rows is not that of the index."""
    with file.path.open("rb") as lines:
        lines.seek(block.index)
        data = lines.read(block.bytes)
    rows = [
        _decode_line(partial(_decode_row, columns), line, file.path, block.line + i)
        for i, line in enumerate(data.split(b"\n"))
        if line.strip()
    ]
    if len(rows) != block.rows:
        raise EmbedkitError(f"{file.path}: changed while it was read, at byte {block.index}; start again")
    return rows


def _first_keys(path: Path) -> set[str]:
    """Keys of the first rows. A row that lacks a key has null in that column, as in Parquet."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    keys: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(islice(file, PEEKED_LINES), 1):
            if not line.isspace():
                keys |= set(_decode_line(decode, line, path, number))
    return keys


def _decode_row(columns: Collection[_Column], line: bytes) -> list[Any]:
    """The values of these columns in a line; None if it lacks one."""
    fields = OBJECT.decode(line)
    return [decoder.decode(fields.get(column, NULL)) for column, decoder in columns]


def _decode_line(decode: Callable[[bytes], Any], line: bytes, path: Path, number: int) -> Any:
    try:
        return decode(line)
    except UNREADABLE as error:
        raise EmbedkitError(f"{path}: line {number}: not a readable row: {error}; fix or remove the line") from None
