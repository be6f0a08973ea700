"""Reads Parquet files. A block is a row group."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.data.reader import (
    BATCH_BYTES,
    MESSAGES_COLUMN,
    PART_FIELDS,
    REASONING_FIELDS,
    SOURCE_COLUMN,
    Block,
    IndexedFile,
    require_columns,
)
from embedkit.documents import DataFile
from embedkit.errors import EmbedkitError, UsageError
from embedkit.storage import names_file

BATCH_ROWS = 4096
TEXT_ROWS = 1 << 16


def identify(path: Path) -> DataFile:
    """Identity of a file: its size, its rows and the sha256 of its footer.

    Raises EmbedkitError if it is not a whole Parquet file.
    """
    footer = _read_footer(path)
    return DataFile(
        name=path.name,
        bytes=path.stat().st_size,
        rows=open_parquet(path).metadata.num_rows,
        footer_sha256=hashlib.sha256(footer).hexdigest(),
    )


def check_columns(path: Path, messages_column: str, source_column: str, *, reasoning: bool) -> None:
    """Raise UsageError if a column is missing, is there twice or has the wrong type.

    With `reasoning`, also for a field of REASONING_FIELDS that can hold no text.
    """
    schema = open_parquet(path).schema_arrow
    for name in (messages_column, source_column):
        if schema.names.count(name) > 1:
            raise UsageError(f"{path}: it has {schema.names.count(name)} columns named {name!r}; rename all but one")
    require_columns(path, set(schema.names), messages_column, source_column)
    _check_messages_type(path, schema.field(messages_column))
    if reasoning:
        _check_reasoning_types(path, schema.field(messages_column))
    _check_source_type(path, schema.field(source_column))


def index_file(path: Path, first_row: int) -> IndexedFile:
    """Find the row groups of a file in its footer."""
    metadata = open_parquet(path).metadata
    blocks = []
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if group.num_rows:
            blocks.append(Block(first_row, group.num_rows, group.total_byte_size, index))
        first_row += group.num_rows
    return IndexedFile(path, tuple(blocks), None)


def read_block(
    file: IndexedFile, block: Block, source_column: str, messages_column: str | None, *, reasoning: bool
) -> Iterator[pl.DataFrame]:
    """Stream a row group in batches of about BATCH_BYTES.

    Raises EmbedkitError naming the row group that cannot be read, or the row whose text is not UTF-8.
    """
    columns = {SOURCE_COLUMN: source_column}
    if messages_column is not None:
        columns = {MESSAGES_COLUMN: messages_column} | columns
    batch_rows = int(np.clip(BATCH_BYTES * block.rows // max(block.bytes, 1), 1, BATCH_ROWS))
    try:
        parquet = open_parquet(file.path)
        row = block.first_row
        for batch in _read_batches(parquet, columns, batch_rows, [block.index]):
            _check_text(file.path, batch, row)
            row += batch.num_rows
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame
    except (pa.ArrowException, OSError) as error:
        raise EmbedkitError(f"{file.path}: row group {block.index} cannot be read: {error}") from None


def read_texts(path: Path, column: str) -> Iterator[pl.Series]:
    """Stream a text column of a whole file, null as "". Raises EmbedkitError if the file is not Parquet."""
    for batch in _read_batches(open_parquet(path), {SOURCE_COLUMN: column}, TEXT_ROWS, None):
        texts = pl.from_arrow(batch.column(0))
        assert isinstance(texts, pl.Series)
        yield texts.cast(pl.String).fill_null("")


def leaf_columns(parquet: pq.ParquetFile, column: str) -> range:
    """Indices, in the file's metadata, of the values of a top-level column.

    The dotted paths there do not show where a name ends: `a.b` is a column, or the field b of column a.
    """
    schema = parquet.schema_arrow
    counts = [_count_leaves(field.type) for field in schema]
    place = schema.names.index(column)
    return range(sum(counts[:place]), sum(counts[: place + 1]))


def _count_leaves(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _count_leaves(kind.storage_type)
    return sum(_count_leaves(kind.field(i).type) for i in range(kind.num_fields)) if kind.num_fields else 1


def _read_batches(
    parquet: pq.ParquetFile, columns: dict[str, str], batch_rows: int, row_groups: list[int] | None
) -> Iterator["pa.RecordBatch"]:
    """Stream columns, given as the name to yield and the file's name, in that order."""
    names = list(columns.values())
    for batch in parquet.iter_batches(batch_rows, row_groups=row_groups, columns=names, use_threads=False):
        # pyarrow takes a name for a path, too: `a.b` also reads the field b of column a.
        yield pa.RecordBatch.from_arrays([batch.column(name) for name in names], names=list(columns))


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file by its footer. Raises EmbedkitError if it is not Parquet."""
    try:
        with names_file(path):
            return pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowException as error:
        raise EmbedkitError(f"{path}: not a readable Parquet file: {error}; fetch or write it again") from None


def _read_footer(path: Path) -> bytes:
    """Bytes of the footer. Its length stands before the final magic (parquet-format, "File format")."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        tail = file.read()
        length = int.from_bytes(tail[:4], "little")
        if size < 12 or tail[4:] != b"PAR1" or length > size - 12:
            raise EmbedkitError(f"{path}: not a whole Parquet file (cut short?); fetch or write it again")
        file.seek(size - 8 - length)
        return file.read(length)


def _check_messages_type(path: Path, field: "pa.Field[Any]") -> None:
    kind = field.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    fields = {f.name: f.type for f in kind.value_type} if is_list and pa.types.is_struct(kind.value_type) else {}
    for name in ("role", "content"):
        if name not in fields or not (_is_text(fields[name]) or pa.types.is_null(fields[name])):
            raise UsageError(
                f"{path}: column {field.name!r} is {kind}; messages must be a list of structs with the text "
                "fields role and content"
            )


def _check_reasoning_types(path: Path, field: "pa.Field[Any]") -> None:
    for part in field.type.value_type:
        if part.name in REASONING_FIELDS and not _holds_reasoning(part.type):
            raise UsageError(
                f"{path}: column {field.name!r}: the field {part.name!r} of a message is {part.type}, which is no "
                "text; write it as text, or leave such fields out by --think-format classic"
            )


def _holds_reasoning(kind: pa.DataType) -> bool:
    """Whether a field is text, a list of texts, a list of parts with a text each, or a flag or a number."""
    is_flag = pa.types.is_null(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)
    if is_flag or pa.types.is_floating(kind) or _is_text(kind):
        return True
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    item = kind.value_type
    if pa.types.is_struct(item):
        texts = [part.type for part in item if part.name in PART_FIELDS]
        return bool(texts) and all(_is_text(text) or pa.types.is_null(text) for text in texts)
    return _is_text(item) or pa.types.is_null(item)


def _check_source_type(path: Path, field: "pa.Field[Any]") -> None:
    if not (_is_text(field.type) or pa.types.is_null(field.type)):
        raise UsageError(f"{path}: column {field.name!r} is {field.type}; the source must be text")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _check_text(path: Path, batch: "pa.RecordBatch", first_row: int) -> None:
    """Raise EmbedkitError naming the first row whose text is not UTF-8.

    Parquet readers do not check, and polars relies on valid text.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for i in range(batch.num_rows):
            try:
                batch.slice(i, 1).to_pylist()
            except UnicodeDecodeError as error:
                raise EmbedkitError(f"{path}: row {first_row + i}: not UTF-8: {error}; fix or remove the row") from None
        raise
