"""Reads Arrow IPC: files and streams, as Feather 2, polars and `datasets` write them. A block is some record batches.

Source: the Arrow columnar format, "Serialization and Interprocess Communication". A file has a list of its batches at
its end. A stream has none: it is read from its start, which costs little for batches that are skipped.

Files are mapped into memory, so a batch of any size takes little of it, unless its buffers are compressed.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from embedkit.data.arrow_columns import check_types, own_slice, pieces, read_frames, require_valid, take_path, take_rows
from embedkit.data.columns import Columns, find_path
from embedkit.data.reader import BATCH_BYTES, PEEKED_ROWS, Block, IndexedFile, require_columns, require_once
from embedkit.documents import DataFile
from embedkit.errors import EmbedkitError
from embedkit.storage import names_file

MAGIC = (b"ARROW1", b"\xff\xff\xff\xff")
"""How a file and a stream begin."""
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
BATCH_ROWS = 4096


def identify(path: Path) -> DataFile:
    """Identity of a file: its size. `index_file` adds the sha256, which takes a pass over the file.

    Raises EmbedkitError if it is not Arrow, or has no end.
    """
    _require_end(path)
    _Batches(path)
    return DataFile(name=path.name, bytes=path.stat().st_size)


def column_names(path: Path) -> list[str]:
    """Names of the top-level columns."""
    return list(_Batches(path).schema.names)


def check_columns(path: Path, columns: Columns) -> None:
    """Raise UsageError if a column is missing, is there twice or has a type that cannot be read."""
    schema = _Batches(path).schema
    require_once(path, schema.names, columns)
    require_columns(path, set(schema.names), columns)
    check_types(path, schema, columns)


def peek(path: Path, column: str) -> list[Any]:
    """The column's values in the first rows, as plain Python."""
    with _naming_damage(path):
        for batch in _Batches(path, (column,)).all():
            if batch.num_rows:
                first = own_slice(batch, 0, min(batch.num_rows, PEEKED_ROWS))
                first.validate(full=True)
                return list(take_path(first, column).to_pylist())
    return []


def index_file(path: Path, first_row: int) -> IndexedFile:
    """Find the batches of a file, and the sha256 of its bytes. Small batches that follow each other make one block."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    _require_end(path)
    blocks: list[Block] = []
    with _naming_damage(path):
        for index, batch in enumerate(_Batches(path).all()):
            batch.validate()
            last = blocks[-1] if blocks else None
            if last and last.rows + batch.num_rows <= BATCH_ROWS and last.bytes + batch.nbytes <= BATCH_BYTES:
                rows, size = last.rows + batch.num_rows, last.bytes + batch.nbytes
                blocks[-1] = Block(last.first_row, rows, size, last.index, count=index + 1 - last.index)
            elif batch.num_rows:
                blocks.append(Block(first_row, batch.num_rows, batch.nbytes, index))
            first_row += batch.num_rows
    return IndexedFile(path, tuple(blocks), sha256)


def read_block(
    file: IndexedFile, block: Block, columns: Columns, wanted: npt.NDArray[np.int64]
) -> Iterator[pl.DataFrame]:
    """Stream the wanted rows of a block in frames of about BATCH_BYTES.

    Raises EmbedkitError naming the batch that cannot be read, or the row whose text is not UTF-8.
    """
    where = f"batch {block.index}" if block.count == 1 else f"batches {block.index} to {block.index + block.count - 1}"
    with _naming_damage(file.path, where):
        batch = _joined(file, block, columns)
        for start, stop in pieces(batch):
            low, high = np.searchsorted(wanted, [start, stop])
            if low == high:
                continue
            piece = own_slice(batch, start, stop)
            rows = block.first_row + np.arange(start, stop)
            if high - low < piece.num_rows:
                require_valid(file.path, piece, columns, rows)  # offsets may be damaged, and `take` obeys them
                piece, rows = take_rows(piece, wanted[low:high] - start), block.first_row + wanted[low:high]
            yield from read_frames(file.path, piece, columns, rows)


def _joined(file: IndexedFile, block: Block, columns: Columns) -> "pa.RecordBatch":
    """The batches of a block as one, with the columns that are read."""
    batches = _open_again(file.path, tuple(name for _, name in columns.named()))
    joined = [batches.at(index) for index in range(block.index, block.index + block.count)]
    first = block.first_row
    for batch in joined:
        batch.validate()
        if len(joined) > 1:
            require_valid(file.path, batch, columns, np.arange(first, first + batch.num_rows))
        first += batch.num_rows
    return joined[0] if len(joined) == 1 else pa.concat_batches(joined)


class _Batches:
    """The record batches of a file or stream, with all columns or with those of some names or paths."""

    def __init__(self, path: Path, columns: tuple[str, ...] | None = None) -> None:
        self._path = path
        with path.open("rb") as file:
            head = file.read(8)
        self._is_file = head.startswith(MAGIC[0])
        with _naming_damage(path):
            self.schema: pa.Schema = self._open(None)[0].schema
            self._fields = None if columns is None else self._places(columns)
            self._reader, self._source = self._open(self._fields)
        self._next = 0  # of a stream

    def all(self) -> Iterator["pa.RecordBatch"]:
        """Yield the batches in order. Raises EmbedkitError if a stream ends before its file does."""
        if self._is_file:
            yield from map(self._reader.get_batch, range(self._reader.num_record_batches))
            return
        yield from self._reader
        if self._source.tell() != self._source.size():
            raise EmbedkitError(
                f"{self._path}: there is more after the end of its stream (several files in one?); fetch or write it "
                "again"
            )

    def at(self, index: int) -> "pa.RecordBatch":
        """One batch. Of a stream, the batches between the last one and it are skipped."""
        if self._is_file:
            return self._reader.get_batch(index)
        if index < self._next:
            self._reader, self._source = self._open(self._fields)
            self._next = 0
        while True:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                raise EmbedkitError(f"{self._path}: changed while it was read; start again") from None
            self._next += 1
            if self._next > index:
                return batch

    def _open(self, fields: list[int] | None) -> tuple[Any, "pa.MemoryMappedFile"]:
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        with names_file(self._path):
            source = pa.memory_map(str(self._path))
        return (pa.ipc.open_file if self._is_file else pa.ipc.open_stream)(source, options=options), source

    def _places(self, columns: tuple[str, ...]) -> list[int]:
        """Places of the columns in the schema."""
        steps = [find_path(self.schema.names, column) for column in columns]
        return sorted({self.schema.names.index(path[0]) for path in steps if path is not None})


def _open_again(path: Path, columns: tuple[str, ...]) -> _Batches:
    """Open a file that this process may have opened before: it may have thousands of batches."""
    status = path.stat()
    return _open_same(path, columns, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2)
def _open_same(path: Path, columns: tuple[str, ...], _size: int, _modified: int) -> _Batches:
    return _Batches(path, columns)


def _require_end(path: Path) -> None:
    """Raise EmbedkitError if a file lacks the mark of its end. A writer that is killed leaves such a file."""
    with path.open("rb") as file:
        head = file.read(8)
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        tail = file.read()
    if not (tail.endswith(MAGIC[0]) if head.startswith(MAGIC[0]) else tail == END_OF_STREAM):
        raise EmbedkitError(f"{path}: not a whole Arrow file (cut short?); fetch or write it again")


@contextmanager
def _naming_damage(path: Path, where: str = "its batches") -> Iterator[None]:
    """Raise EmbedkitError naming the file for what pyarrow raises at damaged data."""
    try:
        yield
    except pa.ArrowException as error:
        raise EmbedkitError(f"{path}: {where} cannot be read: {error}; fetch or write it again") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise EmbedkitError(f"{path}: {where} cannot be read: {error}; fetch or write it again") from None
