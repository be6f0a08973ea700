"""Reads Parquet files. A block is a row group, or several small ones."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.data.arrow_chats import as_text, storage_type
from embedkit.data.arrow_columns import check_types, read_frames, take_path, take_rows
from embedkit.data.columns import Columns, find_path
from embedkit.data.parquet_pages import largest_row_bytes
from embedkit.data.reader import BATCH_BYTES, PEEKED_ROWS, Block, IndexedFile, require_columns, require_once
from embedkit.documents import DataFile
from embedkit.errors import EmbedkitError
from embedkit.storage import names_file

BATCH_ROWS = 8192
BLOCK_ROWS = 4096
"""The most rows of small row groups that are read as one block."""
TEXT_ROWS = 1 << 16
MOST_BYTES = 128 << 20
"""The most that a batch may have if a row group stores a long text once for many rows."""
BUFFER_BYTES = 8 << 20
"""How much of a column is read at a time. By default, pyarrow reads the whole column of a row group."""


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


def column_names(path: Path) -> list[str]:
    """Names of the top-level columns."""
    return list(open_parquet(path).schema_arrow.names)


def check_columns(path: Path, columns: Columns) -> None:
    """Raise UsageError if a column is missing, is there twice or has a type that cannot be read."""
    schema = open_parquet(path).schema_arrow
    require_once(path, schema.names, columns)
    require_columns(path, set(schema.names), columns)
    check_types(path, schema, columns)


def peek(path: Path, column: str) -> list[Any]:
    """The column's values in the first rows, as plain Python."""
    parquet = open_parquet(path)
    wanted = 1 if _has_categories(parquet) else PEEKED_ROWS
    ends = np.cumsum([parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)])
    groups = list(range(min(int(np.searchsorted(ends, wanted)) + 1, len(ends))))
    rows = min(_batch_rows(parquet, path, groups, [column]), PEEKED_ROWS) if groups else 1
    batch = next(_read_batches(parquet, [column], rows, groups), None) if groups else None
    return [] if batch is None else list(take_path(batch, column).to_pylist())


def index_file(path: Path, first_row: int) -> IndexedFile:
    """Find the row groups of a file in its footer. Small ones that follow each other make one block."""
    parquet = open_parquet(path)
    metadata, may_join = parquet.metadata, not _has_categories(parquet)
    blocks: list[Block] = []
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        last = blocks[-1] if blocks and may_join else None
        if last and last.rows + group.num_rows <= BLOCK_ROWS and last.bytes + group.total_byte_size <= BATCH_BYTES:
            size = last.bytes + group.total_byte_size
            blocks[-1] = Block(
                last.first_row, last.rows + group.num_rows, size, last.index, count=index + 1 - last.index
            )
        elif group.num_rows:
            blocks.append(Block(first_row, group.num_rows, group.total_byte_size, index))
        first_row += group.num_rows
    return IndexedFile(path, tuple(blocks), None)


def read_block(
    file: IndexedFile, block: Block, columns: Columns, wanted: npt.NDArray[np.int64]
) -> Iterator[pl.DataFrame]:
    """Stream the wanted rows of a block in frames of about BATCH_BYTES.

    Raises EmbedkitError naming the row group that cannot be read, or the row whose text is not UTF-8.
    """
    names = [name for _, name in columns.named()]
    groups = list(range(block.index, block.index + block.count))
    try:
        parquet = _open_again(file.path)
        batch_rows = _batch_rows(parquet, file.path, groups, names)
        done = 0
        batches = _read_batches(parquet, names, batch_rows, groups)
        for batch in batches if _has_categories(parquet) else _joined(batches):
            start, done = done, done + batch.num_rows
            low, high = np.searchsorted(wanted, [start, done])
            if low < high < low + batch.num_rows:
                batch = take_rows(batch, wanted[low:high] - start)
            if low < high:
                yield from read_frames(file.path, batch, columns, block.first_row + wanted[low:high])
            if high == len(wanted):
                return
    except (pa.ArrowException, OSError) as error:
        where = f"row group {block.index}" if block.count == 1 else f"row groups {block.index} to {groups[-1]}"
        raise EmbedkitError(f"{file.path}: {where} cannot be read: {error}") from None


def read_texts(path: Path, column: str) -> Iterator[pl.Series]:
    """Stream a column of a whole file as text, null as "". Raises EmbedkitError if the file is not Parquet."""
    for batch in _read_batches(open_parquet(path), [column], TEXT_ROWS, None):
        yield as_text(take_path(batch, column)).fill_null("")


def leaf_columns(parquet: pq.ParquetFile, column: str) -> range:
    """Indices, in the file's metadata, of the values of a column, or of a field of one.

    The dotted paths there do not show where a name ends: `a.b` is a column, or the field b of column a.
    """
    schema = parquet.schema_arrow
    steps = find_path(schema.names, column)
    assert steps is not None
    fields, first = list(schema), 0
    for step in steps:
        place = [field.name for field in fields].index(step)
        first += sum(_count_leaves(field.type) for field in fields[:place])
        kind = storage_type(fields[place].type)
        fields = list(kind) if pa.types.is_struct(kind) else []
    return range(first, first + _count_leaves(kind))


def _count_leaves(kind: pa.DataType) -> int:
    kind = storage_type(kind)
    return sum(_count_leaves(kind.field(i).type) for i in range(kind.num_fields)) if kind.num_fields else 1


def _batch_rows(parquet: pq.ParquetFile, path: Path, groups: list[int], names: list[str]) -> int:
    """How many rows to read at a time: about BATCH_BYTES, and never more than MOST_BYTES."""
    leaves = [leaf for name in names for leaf in leaf_columns(parquet, name)]
    rows = BATCH_ROWS
    for group in map(parquet.metadata.row_group, groups):
        size = sum(group.column(leaf).total_uncompressed_size for leaf in leaves)
        most = MOST_BYTES / max(largest_row_bytes(path, group, leaves), 1)
        rows = min(rows, int(min(BATCH_BYTES * group.num_rows / max(size, 1), most)))
    return max(rows, 1)


def _read_batches(
    parquet: pq.ParquetFile, names: list[str], batch_rows: int, row_groups: list[int] | None
) -> Iterator["pa.RecordBatch"]:
    """Stream columns, by name or path. A batch may have further ones: pyarrow takes a name for a path, too."""
    yield from parquet.iter_batches(batch_rows, row_groups=row_groups, columns=names, use_threads=False)


def _has_categories(parquet: pq.ParquetFile) -> bool:
    """Whether a column is of categories. Each row group has its own, and pyarrow cannot join nested ones."""
    return any(_is_category(field.type) for field in parquet.schema_arrow)


def _is_category(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or any(_is_category(kind.field(i).type) for i in range(kind.num_fields))


def _joined(batches: Iterator["pa.RecordBatch"]) -> Iterator["pa.RecordBatch"]:
    """Join batches up to BATCH_BYTES: they are small where a row group could have large rows, but seldom has."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if size >= BATCH_BYTES or rows >= BATCH_ROWS:
            yield pa.concat_batches(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_batches(waiting)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file by its footer. Raises EmbedkitError if it is not Parquet."""
    try:
        with names_file(path):
            return pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except pa.ArrowException as error:
        raise EmbedkitError(f"{path}: not a readable Parquet file: {error}; fetch or write it again") from None


def _open_again(path: Path) -> pq.ParquetFile:
    """Open a file of whose footer this process may have read before: it may list thousands of row groups."""
    status = path.stat()
    return _open_same(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2)
def _open_same(path: Path, _size: int, _modified: int) -> pq.ParquetFile:
    return open_parquet(path)


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
