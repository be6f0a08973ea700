"""The rows of a Parquet file as 64-bit hashes, so that files with the same rows in other row groups can be compared.

The hashes find accidents, not an attacker: two different rows have the same hash once in 2**64. They are comparable
only within one process, and are never written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

Hashes = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int64]
NO_HASHES: Hashes = np.empty(0, np.uint64)
_ODD = np.uint64(0x9E3779B97F4A7C15)
"""The golden ratio as an odd 64-bit number: columns that swap their values give another sum."""


@dataclass(frozen=True)
class TableRows:
    """The rows of one Parquet file.

    schema: its columns. hashes: of each row over the hashed columns, uint64 (rows,). kept: the columns kept in memory.
    """

    schema: pa.Schema
    hashes: Hashes
    kept: pa.Table


def read_table_rows(source: Path | pa.Buffer, hashed: Sequence[str], keep: Sequence[str]) -> TableRows:
    """Hash the rows of a Parquet file, one column of one row group in memory at a time.

    Args:
        source: a path, which is opened as it is (it is no pattern), or the bytes.
        hashed: columns that are hashed; those that the file lacks are left out, which the schema shows.
        keep: columns to keep in memory.

    Raises:
        pa.ArrowException: the file cannot be decoded.
        OSError: it cannot be read.
    """
    file = pa.OSFile(str(source)) if isinstance(source, Path) else pa.BufferReader(source)
    with pq.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow
        there = [name for name in hashed if name in schema.names]
        kept_names = [name for name in keep if name in schema.names]
        hashes, kept = [NO_HASHES], [schema.empty_table().select(kept_names)]
        for group in range(parquet.metadata.num_row_groups):
            mixed = np.zeros(parquet.metadata.row_group(group).num_rows, np.uint64)
            for name in there:
                column = parquet.read_row_group(group, columns=[name], use_threads=False)[name]
                mixed = mixed * _ODD + _hash(column)
            hashes.append(mixed)
            kept.append(parquet.read_row_group(group, columns=kept_names, use_threads=False))
    return TableRows(schema, np.concatenate(hashes), pa.concat_tables(kept))


def _hash(column: pa.ChunkedArray) -> Hashes:
    if pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())  # the same buffers, which are then not checked as UTF-8 once more
    series = pl.from_arrow(column)
    assert isinstance(series, pl.Series)
    return series.hash(0).to_numpy()


def hash_pieces(data: memoryview, piece_bytes: int) -> Hashes:
    """Hash of each of the pieces of equal size that bytes consist of, uint64 (pieces,)."""
    count = len(data) // piece_bytes
    offsets = pa.py_buffer(np.arange(count + 1, dtype=np.int64) * piece_bytes)
    pieces = pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, [None, offsets, pa.py_buffer(data)])
    return _hash(pa.chunked_array([pieces]))


def read_row(path: Path, at: int, columns: Sequence[str]) -> dict[str, object]:
    """One row of a Parquet file by its position, with some of its columns. Raises as read_table_rows does."""
    with pq.ParquetFile(pa.OSFile(str(path))) as parquet:
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if at < rows:
                there = [name for name in columns if name in parquet.schema_arrow.names]
                found: dict[str, object] = parquet.read_row_group(group, columns=there).slice(at, 1).to_pylist()[0]
                return found
            at -= rows
    return {}


def take_rows(parquet: pq.ParquetFile, at: Ids, columns: Sequence[str]) -> pa.Table:
    """Rows of an open Parquet file by ascending positions, int64 (n,). Each row group is read once, one at a time.

    Raises pa.ArrowException if the file cannot be decoded, or has no such row.
    """
    sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
    if len(at) and at[-1] >= sum(sizes):
        raise pa.ArrowIndexError(f"it has {sum(sizes)} rows, and row {at[-1]} was requested")
    ends = np.cumsum(sizes, dtype=np.int64)
    groups = np.searchsorted(ends, at, "right")
    found = [parquet.schema_arrow.empty_table().select(list(columns))]
    for group in np.unique(groups).tolist():
        here = at[groups == group] - (ends[group] - sizes[group])
        rows = parquet.read_row_group(group, columns=list(columns), use_threads=False)
        found.append(rows.take(pa.array(here)))
    return pa.concat_tables(found)
