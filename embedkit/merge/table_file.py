"""Writes a Parquet file from row groups: their columns are encoded here, or copied as another file has them.

pyarrow encodes columns into a file in memory, from which they are copied like all others. It also makes the footer, as
that of a file without rows, so that a copy has the schema, version and metadata of any file that pyarrow writes.
"""

from functools import lru_cache
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents import HashedFile
from embedkit.merge.encoded_file import (
    COMPRESSED,
    GROUP_BYTES,
    GROUP_COLUMNS,
    GROUP_COMPRESSED,
    GROUP_OFFSET,
    GROUP_ROWS,
    MAGIC,
    ROW_GROUPS,
    ROWS,
    UNCOMPRESSED,
    Chunk,
    EncodedFile,
)
from embedkit.merge.thrift_compact import I64, LIST, STRUCT, NotUnderstood, write_struct
from embedkit.prepare import COMPRESSION


def encode_rows(rows: pa.Table) -> EncodedFile:
    """The rows as a file in memory, in one row group; in none if there are no rows."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, **COMPRESSION) as writer:
        if rows.num_rows:
            writer.write_table(rows, row_group_size=rows.num_rows)
    return EncodedFile(memoryview(sink.getvalue()))


class TableFile:
    """A Parquet file that is written to `sink`, row group by row group. It is whole when the block ends."""

    def __init__(self, sink: HashedFile, schema: pa.Schema) -> None:
        template = _without_rows(schema)
        self._sink = sink
        self._footer = template.footer
        self._columns = template.columns
        self._rows = 0
        self._groups: list[bytes] = []
        sink.write(MAGIC)

    def copied(self, file: EncodedFile, group: int) -> list[str]:
        """The columns of this file that a row group of `file` has with the same type, and that can be copied."""
        return [name for name, column in self._columns.items() if _can_copy(file, group, name, column.elements)]

    def write(self, rows: EncodedFile) -> None:
        """Append the only row group of a file."""
        self.copy(rows, 0, None)

    def copy(self, file: EncodedFile, group: int, own: EncodedFile | None) -> None:
        """Append a row group of `file`. own: the columns that replace the file's, or that it lacks."""
        chunks: list[Chunk] = []
        for name in self._columns:
            chunks += own.chunks(0, name) if own and name in own.columns else file.chunks(group, name)
        begin = self._sink.tell()
        moved = []
        for chunk in chunks:
            moved.append(chunk.moved(self._sink.tell()))
            self._sink.write(chunk.data)
        rows = file.rows(group)
        self._rows += rows
        described = {
            GROUP_COLUMNS: (LIST, (STRUCT, moved)),
            GROUP_BYTES: (I64, sum(chunk.meta[UNCOMPRESSED][1] for chunk in chunks)),
            GROUP_ROWS: (I64, rows),
            GROUP_OFFSET: (I64, begin),
            GROUP_COMPRESSED: (I64, sum(chunk.meta[COMPRESSED][1] for chunk in chunks)),
        }
        self._groups.append(write_struct(described))  # a tree would take ten times the memory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    def close(self) -> None:
        """Write the footer."""
        footer = self._footer | {ROWS: (I64, self._rows), ROW_GROUPS: (LIST, (STRUCT, self._groups))}
        data = write_struct(footer)
        self._sink.write(data + len(data).to_bytes(4, "little") + MAGIC)


@lru_cache(maxsize=2)  # a merge has as many files of one schema as sources
def _without_rows(schema: pa.Schema) -> EncodedFile:
    return encode_rows(schema.empty_table())


def _can_copy(file: EncodedFile, group: int, name: str, elements: tuple[object, ...]) -> bool:
    try:
        file.chunks(group, name)
    except NotUnderstood:
        return False
    return file.columns[name].elements == elements
