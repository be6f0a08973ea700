"""The data set as a sequence of rows: finding its files, knowing them again, reading any rows of it.

`row` is the 0-based index through all files in order and never changes. A file is a list of blocks (a
Parquet row group, or about a thousand JSONL lines), the smallest pieces that can be read alone.
"""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents.codec import UNREADABLE
from embedkit.documents.schema import DataFile
from embedkit.errors import EmbedkitError, UsageError

JSONL_BLOCK_LINES = 1024
PEEKED_LINES = 100
BATCH_BYTES = 8 << 20
BATCH_ROWS = 4096

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
"""The type of the messages column once read; further fields of a message are left alone."""


@dataclass(frozen=True)
class Block:
    """Rows [first_row, first_row + rows) of the data set.

    Parquet: `index` is the row group. JSONL: `index` is the byte offset and `line` the 1-based number of
    the first line. `bytes` is the uncompressed size.
    """

    first_row: int
    rows: int
    bytes: int
    index: int
    line: int = 0


@dataclass(frozen=True)
class DataPath:
    """One opened file: blocks in order, and for JSONL the sha256 of its bytes."""

    path: Path
    blocks: tuple[Block, ...]
    sha256: str | None

    @property
    def is_parquet(self) -> bool:
        """Whether the file is Parquet; else it is JSONL."""
        return self.path.suffix == ".parquet"


@dataclass(frozen=True)
class Dataset:
    """All files of a data set, in order, with the two columns that are read."""

    files: tuple[DataPath, ...]
    messages_column: str
    source_column: str

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(block.rows for file in self.files for block in file.blocks)


def find_files(datasets: Sequence[str]) -> list[Path]:
    """The Parquet and JSONL files that the arguments name: files, folders or globs, each in sorted order.

    Raises UsageError if an argument names nothing.
    """
    found: list[Path] = []
    for dataset in datasets:
        path = Path(dataset)
        if path.is_dir():
            matches = [p for p in sorted(path.rglob("*")) if p.suffix in (".parquet", ".jsonl") and p.is_file()]
        elif path.is_file():
            matches = [path]
        else:
            matches = [p for p in map(Path, sorted(glob.glob(dataset, recursive=True))) if p.is_file()]  # noqa: PTH207
        if not matches:
            raise UsageError(f"--dataset {dataset}: no Parquet or JSONL file there")
        for match in matches:
            if match.suffix not in (".parquet", ".jsonl"):
                raise UsageError(f"--dataset {match}: only .parquet and .jsonl files are read")
        found += [match.absolute() for match in matches]
    check_no_file_twice(found)
    return found


def check_no_file_twice(paths: Sequence[Path]) -> None:
    """Raise UsageError if two of the paths are the same. Links may be: the Hub's cache has two to one file."""
    real = [os.path.normpath(path) for path in paths]
    if len(set(real)) != len(real):
        twice = next(path for path in paths if real.count(os.path.normpath(path)) > 1)
        raise UsageError(f"--dataset names {twice} twice; its rows would count twice")


def identify(path: Path) -> DataFile:
    """What tells this file from another without reading it whole."""
    size = path.stat().st_size
    if path.suffix != ".parquet":
        return DataFile(name=path.name, bytes=size)
    footer = _read_footer(path)
    return DataFile(
        name=path.name,
        bytes=size,
        rows=open_parquet(path).metadata.num_rows,
        footer_sha256=hashlib.sha256(footer).hexdigest(),
    )


def check_columns(path: Path, messages_column: str, source_column: str) -> None:
    """Raise UsageError if the file lacks a column or has it in another type than expected."""
    if path.suffix == ".parquet":
        schema = open_parquet(path).schema_arrow
        names = set(schema.names)
        for name in (messages_column, source_column):
            if schema.names.count(name) > 1:
                raise UsageError(
                    f"{path}: it has {schema.names.count(name)} columns named {name!r}; rename all but one"
                )
    else:
        names = _first_jsonl_keys(path)
        if not names:
            return  # no rows
    for option, name in (("--messages-column", messages_column), ("--source-column", source_column)):
        if name not in names:
            raise UsageError(f"{path}: no column {name!r} ({option}); there are: {', '.join(sorted(names))}")
    if path.suffix == ".parquet":
        _check_messages_type(path, schema.field(messages_column))
        _check_source_type(path, schema.field(source_column))


def open_dataset(paths: Sequence[Path], messages_column: str, source_column: str) -> Dataset:
    """Open the files: Parquet footers are read; JSONL files are read once, for line offsets and sha256."""
    files: list[DataPath] = []
    first_row = 0
    for path in paths:
        file = _index_parquet(path, first_row) if path.suffix == ".parquet" else _index_jsonl(path, first_row)
        first_row += sum(block.rows for block in file.blocks)
        files.append(file)
    return Dataset(tuple(files), messages_column, source_column)


def read_sources(dataset: Dataset) -> Iterator[pl.DataFrame]:
    """Stream (row: Int64, dataset_source: String) through the whole data set."""
    for file in dataset.files:
        for block in file.blocks:
            for frame in _read_block(dataset, file, block, [dataset.source_column]):
                yield frame.select("row", dataset_source=_source_expression(dataset))


def read_rows(dataset: Dataset, rows: npt.NDArray[np.int64]) -> Iterator[pl.DataFrame]:
    """Stream (row: Int64, messages, dataset_source: String) for the given ascending rows.

    Blocks without a wanted row are not read. A frame holds about 32 MB of data at most.
    """
    columns = [dataset.messages_column, dataset.source_column]
    for file in dataset.files:
        for block in file.blocks:
            low, high = np.searchsorted(rows, [block.first_row, block.first_row + block.rows])
            if low == high:
                continue
            for frame in _read_block(dataset, file, block, columns, last_row=int(rows[high - 1])):
                wanted = frame
                if high - low < block.rows:
                    wanted = frame.filter(pl.col("row").is_in(pl.Series(rows[low:high]).implode()))
                if wanted.height:
                    yield wanted.select(
                        "row",
                        messages=_messages_expression(dataset),
                        dataset_source=_source_expression(dataset),
                    )


def row_bytes(dataset: Dataset) -> npt.NDArray[np.float32]:
    """Uncompressed bytes a row, float32 (rows,): the mean of the row's block."""
    blocks = [block for file in dataset.files for block in file.blocks]
    means = np.array([block.bytes / max(block.rows, 1) for block in blocks], np.float32)
    return np.repeat(means, [block.rows for block in blocks])


def _source_expression(dataset: Dataset) -> pl.Expr:
    return pl.col(dataset.source_column).cast(pl.String).fill_null("")


def _messages_expression(dataset: Dataset) -> pl.Expr:
    message = pl.struct(
        pl.element().struct.field("role").cast(pl.String), pl.element().struct.field("content").cast(pl.String)
    )
    return pl.col(dataset.messages_column).list.eval(message)


def _read_block(
    dataset: Dataset, file: DataPath, block: Block, columns: list[str], last_row: int | None = None
) -> Iterator[pl.DataFrame]:
    """Stream the block's columns with their row numbers, up to last_row."""
    first = block.first_row
    frames = _read_parquet(file, block, columns) if file.is_parquet else _read_jsonl(dataset, file, block, columns)
    for frame in frames:
        yield frame.with_columns(pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias("row"))
        first += frame.height
        if last_row is not None and first > last_row:
            return


# Parquet


def _read_footer(path: Path) -> bytes:
    """The footer's bytes; its length stands before the final magic (parquet-format, "File format")."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        tail = file.read()
        length = int.from_bytes(tail[:4], "little")
        if size < 12 or tail[4:] != b"PAR1" or length > size - 12:
            raise EmbedkitError(f"{path}: not a whole Parquet file (cut short?); fetch or write it again")
        file.seek(size - 8 - length)
        return file.read(length)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file by its footer. Raises EmbedkitError if it is not Parquet."""
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowException as error:
        raise EmbedkitError(f"{path}: not a readable Parquet file: {error}; fetch or write it again") from None


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


def _check_source_type(path: Path, field: "pa.Field[Any]") -> None:
    if not (_is_text(field.type) or pa.types.is_null(field.type)):
        raise UsageError(f"{path}: column {field.name!r} is {field.type}; the source must be text")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _index_parquet(path: Path, first_row: int) -> DataPath:
    metadata = open_parquet(path).metadata
    blocks = []
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if group.num_rows:
            blocks.append(Block(first_row, group.num_rows, group.total_byte_size, index))
        first_row += group.num_rows
    return DataPath(path, tuple(blocks), None)


def _read_parquet(file: DataPath, block: Block, columns: list[str]) -> Iterator[pl.DataFrame]:
    batch_rows = int(np.clip(BATCH_BYTES * block.rows // max(block.bytes, 1), 1, BATCH_ROWS))
    try:
        parquet = open_parquet(file.path)
        row = block.first_row
        for batch in parquet.iter_batches(batch_rows, row_groups=[block.index], columns=columns, use_threads=False):
            _check_text(file.path, batch, row)
            row += batch.num_rows
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame
    except (pa.ArrowException, OSError) as error:
        raise EmbedkitError(f"{file.path}: row group {block.index} cannot be read: {error}") from None


def _check_text(path: Path, batch: "pa.RecordBatch", first_row: int) -> None:
    """Raise EmbedkitError naming the first row whose text is not UTF-8: no reader checks, and polars relies on it."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for i in range(batch.num_rows):
            try:
                batch.slice(i, 1).to_pylist()
            except UnicodeDecodeError as error:
                raise EmbedkitError(
                    f"{path}: row {first_row + i}: not UTF-8: {error}; mend or remove the row"
                ) from None
        raise


# JSONL: blank lines are no rows


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | None = None


def _index_jsonl(path: Path, first_row: int) -> DataPath:
    """One pass over the file: where every block of lines begins, and the sha256 of the bytes."""
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
            if rows == JSONL_BLOCK_LINES or offset - start >= BATCH_BYTES:
                if rows:
                    blocks.append(Block(first_row, rows, offset - start, start, first_line))
                first_row += rows
                start, first_line, rows = offset, line_number, 0
    if rows:
        blocks.append(Block(first_row, rows, offset - start, start, first_line))
    return DataPath(path, tuple(blocks), digest.hexdigest())


def _first_jsonl_keys(path: Path) -> set[str]:
    """Keys of the first rows; a row that lacks one has null there, as in Parquet."""
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
        raise EmbedkitError(f"{path}: line {number}: not a readable row: {error}; mend or remove the line") from None


def _read_jsonl(dataset: Dataset, file: DataPath, block: Block, columns: list[str]) -> Iterator[pl.DataFrame]:
    types: dict[str, Any] = {dataset.messages_column: list[_Message | None] | None, dataset.source_column: str | None}
    names = {name: f"column_{i}" for i, name in enumerate(columns)}
    row_type = msgspec.defstruct(
        "Row", [(names[c], types[c], None) for c in columns], rename={field: name for name, field in names.items()}
    )
    decoder = msgspec.json.Decoder(row_type)
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
    values = {name: [getattr(row, field) for row in rows] for name, field in names.items()}
    if dataset.messages_column in values:
        values[dataset.messages_column] = [
            None if row is None else [None if m is None else {"role": m.role, "content": m.content} for m in row]
            for row in values[dataset.messages_column]
        ]
    schema = {c: MESSAGES if c == dataset.messages_column else pl.String() for c in columns}
    yield pl.DataFrame(values, schema=schema)
