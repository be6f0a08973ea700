"""The rows of parts that follow each other: large row groups one by one, as they are, and small ones joined.

A large row group can be copied encoded. Small ones would make a file that reads slowly, so they are decoded and joined.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.data import open_part, read_checked_part
from embedkit.documents import PlanPart
from embedkit.merge.encoded_file import EncodedFile
from embedkit.merge.table_file import TableFile, encode_rows
from embedkit.merge.thrift_compact import NotUnderstood
from embedkit.run import RunFolder

JOINED_BYTES = 32 << 20
"""Small row groups are joined until they have as many bytes."""
LARGE_BYTES = 4 << 20
"""The least mean size, not compressed, of a part's row groups that are copied. Each costs a reader about as much time
as 300 kB of text, so smaller ones would make a table that reads slowly."""
BATCH_BYTES = 16 << 20
"""How much of a large row group is decoded at a time: memory in larger pieces is cleared by the system each time."""
SOURCE = "dataset_source"


@dataclass(frozen=True)
class JoinedGroups:
    """Small row groups of parts, decoded and joined: rows with ids first, first + 1, ..., in one chunk per column."""

    first: int
    rows: pa.Table

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return int(self.rows.num_rows)

    def tables(self) -> Iterator[pa.Table]:
        """The rows, some at a time."""
        yield self.rows

    def write_to(self, file: TableFile) -> None:
        """Append the rows to a table, as a row group."""
        file.write(encode_rows(self.rows))

    def count_sources(self) -> Counter[str]:
        """The number of rows by source."""
        return _count_sources(self.rows)


@dataclass(frozen=True)
class LargeGroup:
    """A row group of a part that is not decoded yet: rows with ids first, first + 1, ...

    schema: the columns that the rows shall have.
    """

    first: int
    num_rows: int
    schema: pa.Schema
    file: EncodedFile
    group: int

    def tables(self) -> Iterator[pa.Table]:
        """The rows, decoded, about BATCH_BYTES at a time in one chunk per column."""
        columns = _without_id(self.schema.names)
        parquet = self._open()
        row_bytes = parquet.metadata.row_group(self.group).total_byte_size / max(self.num_rows, 1)
        count = max(int(BATCH_BYTES / max(row_bytes, 1)), 1)
        first = self.first
        for batch in parquet.iter_batches(count, row_groups=[self.group], columns=columns, use_threads=False):
            yield _with_ids(pa.Table.from_batches([batch]), first, self.schema)
            first += batch.num_rows

    def write_to(self, file: TableFile) -> None:
        """Append the rows to a table, as a row group. Columns that the part has in the same form are copied."""
        copied = file.copied(self.file, self.group)
        own = [name for name in self.schema.names if name not in copied]
        file.copy(self.file, self.group, encode_rows(self._decoded(own)))

    def count_sources(self) -> Counter[str]:
        """The number of rows by source."""
        return _count_sources(self._decoded([SOURCE]))

    def _open(self) -> pq.ParquetFile:
        """Open the part anew: one thread may copy the row group while another decodes it."""
        return open_part(self.file.data)

    def _decoded(self, names: Sequence[str]) -> pa.Table:
        rows = self._open().read_row_group(self.group, columns=_without_id(names), use_threads=False)
        return _with_ids(rows, self.first, pa.schema([self.schema.field(name) for name in names]))


RowGroup = JoinedGroups | LargeGroup


def row_groups(run: RunFolder, parts: Sequence[PlanPart], schema: pa.Schema) -> Iterator[RowGroup]:
    """The rows of parts that follow each other, with their ids.

    Every call checks the parts' bytes again. Raises EmbedkitError naming a part that is damaged.
    """
    columns = _without_id(schema.names)
    small: list[pa.Table] = []
    first = next_id = parts[0].first_id
    for part in parts:
        data = read_checked_part(run, part)
        parquet = open_part(data)
        file = _copyable(data, columns)
        for group in range(parquet.metadata.num_row_groups):
            if file is None:
                small.append(parquet.read_row_group(group, columns=columns, use_threads=False))
            if small and (file is not None or sum(table.nbytes for table in small) >= JOINED_BYTES):
                yield _joined(small, first, schema)
                small = []
            rows = parquet.metadata.row_group(group).num_rows
            if file is not None:
                yield LargeGroup(next_id, rows, schema, file, group)
            next_id += rows
            first = first if small else next_id
    if small:
        yield _joined(small, first, schema)


def _copyable(data: bytearray, columns: Sequence[str]) -> EncodedFile | None:
    """A part whose row groups are large enough to be copied, unless it has something that cannot be."""
    try:
        file = EncodedFile(data)
        is_large = file.size(columns) >= LARGE_BYTES * max(file.groups, 1)
    except NotUnderstood:
        return None
    return file if is_large else None


def _joined(tables: list[pa.Table], first: int, schema: pa.Schema) -> JoinedGroups:
    return JoinedGroups(first, _with_ids(pa.concat_tables(tables), first, schema))


def _with_ids(rows: pa.Table, first: int, schema: pa.Schema) -> pa.Table:
    """The rows with the columns of a schema, in one chunk each: `take` is slow where a column has several."""
    ids = pa.array(np.arange(first, first + rows.num_rows))
    return rows.append_column("id", ids).select(schema.names).cast(schema).combine_chunks()


def _without_id(names: Sequence[str]) -> list[str]:
    return [name for name in names if name != "id"]


def _count_sources(rows: pa.Table) -> Counter[str]:
    sources = pl.from_arrow(rows[SOURCE])
    assert isinstance(sources, pl.Series)
    return Counter(dict(sources.value_counts().iter_rows()))
