"""The rows of a merged run as a stream: vectors in blocks and columns of metadata in batches, of the run or one source.

The memory of an export does not grow with the rows: what was read is released.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents import FileRecord, Floats, Matrix, Success, View, file_problem, item_bytes, read, to_stored
from embedkit.errors import EmbedkitError
from embedkit.export.forms import cut
from embedkit.log_progress import Advance
from embedkit.merged_files import MergedFiles, TableFile
from embedkit.merged_run import ids_of_source, take_lines
from embedkit.prepare import stored_texts
from embedkit.run import RunFolder

BLOCK_BYTES = 16 << 20
"""Bytes of vectors that are read at once."""
BATCH_ROWS = 4096
"""Rows of metadata that are decoded at once."""
ROWS_PER_CELL = 39
"""faiss warns if it trains cells with fewer."""

"""Called with the number of rows that were done."""
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a merged run, in order: of the whole run, or of one source.

    folder: where their files are in an export, relative to it. matrix: their vectors. files: tables with their
    metadata, and with that of other rows if `ids` has theirs, ascending.
    """

    folder: str
    matrix: Matrix
    files: tuple[TableFile, ...]
    ids: Ids | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.matrix.shape[0]

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self.matrix.shape[1]

    @property
    def block_rows(self) -> int:
        """Rows of a block of vectors."""
        return max(BLOCK_BYTES // (self.dim * item_bytes("float32")), 1)

    def name(self, file: str) -> str:
        """The name of a file of these rows, relative to the export's folder."""
        return f"{self.folder}/{file}" if self.folder else file

    def vectors(self, start: int, stop: int) -> Floats:
        """Vectors of rows [start, stop), float32 (n, dim)."""
        found = np.array(self.matrix.take(np.arange(start, stop)))
        self.matrix.release(start, stop)
        return found

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Floats]:
        """Yield the vectors of rows [start, stop) in blocks, float32 (n, dim)."""
        stop = self.rows if stop is None else stop
        for first in range(start, stop, self.block_rows):
            last = min(first + self.block_rows, stop)
            self.matrix.read_ahead(last, min(last + self.block_rows, stop))
            yield self.vectors(first, last)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the metadata."""
        return pq.read_schema(self.files[0].path)

    @cached_property
    def column_bytes(self) -> dict[str, float]:
        """Bytes of each column of these rows before compression. A name may have dots."""
        found = dict.fromkeys(self.schema.names, 0.0)
        for file in self.files:
            metadata = pq.read_metadata(file.path)
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                for column in map(group.column, range(group.num_columns)):
                    found[column.path_in_schema] += column.total_uncompressed_size
        share = self.rows / max(sum(file.rows for file in self.files), 1)
        return {name: size * share for name, size in found.items()}

    def lines(self, columns: Sequence[str], start: int, stop: int, rows: int) -> Iterator[pa.Table]:
        """Yield columns of the metadata of rows [start, stop), `rows` at a time."""
        if self.ids is not None:
            for first in range(start, stop, rows):
                ids = self.ids[first : min(first + rows, stop)]
                yield pa.concat_tables(take_lines(self.files, ids, columns)).combine_chunks()
            return
        pending: list[pa.Table] = []
        for piece in self._batches(columns, start, stop, min(rows, BATCH_ROWS)):
            pending.append(piece)
            while sum(table.num_rows for table in pending) >= rows:
                whole = pa.concat_tables(pending)
                yield whole.slice(0, rows).combine_chunks()
                pending = [whole.slice(rows)]
        rest = pa.concat_tables(pending) if pending else None
        if rest is not None and rest.num_rows:
            yield rest.combine_chunks()

    def _batches(self, columns: Sequence[str], start: int, stop: int, rows: int) -> Iterator[pa.Table]:
        """Columns of the metadata of rows [start, stop) in pieces of at most `rows`."""
        for file in self.files:
            if file.first_id >= stop or file.first_id + file.rows <= start:
                continue
            with pq.ParquetFile(file.path, pre_buffer=False) as parquet:
                counts = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
                ends = np.cumsum(counts) + file.first_id
                groups = [i for i, end in enumerate(ends) if end > start and end - counts[i] < stop]
                at = int(ends[groups[0]] - counts[groups[0]]) if groups else 0
                for batch in parquet.iter_batches(rows, row_groups=groups, columns=list(columns)):
                    piece = batch.slice(max(start - at, 0), max(stop - max(start, at), 0))
                    at += batch.num_rows
                    yield pa.Table.from_batches([piece]).select(list(columns))


@dataclass(frozen=True)
class Survey:
    """What one pass over all vectors found. ranges: float32 (2, dimensions) of the kept dimensions of all rows.

    with_text: rows of each table whose vectors are not zeros.
    """

    ranges: Floats
    with_text: tuple[int, ...]


def whole_run(files: MergedFiles, view: View) -> Table:
    """All rows of a run."""
    return Table("", files.matrix(view), files.tables)


def tables_of(files: MergedFiles, view: View, by_source: bool) -> tuple[Table, ...]:
    """The rows of a run: all, or one table per source."""
    whole = whole_run(files, view)
    if not by_source:
        return (whole,)
    names = sorted(files.success.sources)
    return tuple(_of_source(files, name, view, whole) for name in names)


def _of_source(files: MergedFiles, name: str, view: View, whole: Table) -> Table:
    source = files.success.sources[name]
    folder = f"by_source/{source.folder}"
    matrix, table = files.source_matrix(source, view), files.source_table(source)
    if matrix is not None and table is not None:
        return Table(folder, matrix, (table,))
    ids = ids_of_source(files, name)
    return Table(folder, whole.matrix.select(ids), whole.files, ids)


def survey(files: MergedFiles, view: View, tables: Sequence[Table], dimensions: int, advance: Advance) -> Survey:
    """Read all vectors and metadata once: compare their bytes with their records, and find the ranges of the numbers.

    Raises EmbedkitError naming a file that is missing or damaged.
    """
    for path in dict.fromkeys(file.path for table in tables for file in table.files):
        problem = file_problem(path, _record(files, path))
        if problem:
            raise EmbedkitError(f"{problem}; run `embedkit verify`, which says how to fix it")
    lowest = np.full(dimensions, np.inf, np.float32)
    highest = -lowest
    are_texts: list[npt.NDArray[np.bool_]] = []
    # Rows of a source that has no file of its own are found in those of the whole run, which are checked once.
    is_whole = tables[0].ids is not None
    for table in (whole_run(files, view),) if is_whole else tables:
        blocks = [np.empty(0, np.bool_)]
        for block in _checked_blocks(files, table):
            kept = cut(block, dimensions)
            np.minimum(lowest, kept.min(axis=0), out=lowest)
            np.maximum(highest, kept.max(axis=0), out=highest)
            blocks.append(is_text(block))
            advance(len(block))
        are_texts.append(np.concatenate(blocks))
    of_tables = [are_texts[0][table.ids] for table in tables] if is_whole else are_texts
    return Survey(np.stack([lowest, highest]), tuple(int(of_table.sum()) for of_table in of_tables))


def require_unchanged(run: RunFolder, success: Success) -> None:
    """Raise EmbedkitError if the run was merged again since `success` was read."""
    if not run.success.exists() or read(run.success, Success) != success:
        raise EmbedkitError(f"{run.path}: the run was merged again during the export; export it again")


def metadata_columns(files: MergedFiles) -> list[str]:
    """Columns of the run's metadata, in order. Raises EmbedkitError if it cannot be read."""
    path = files.tables[0].path
    try:
        names: list[str] = pq.read_schema(path).names
    except (OSError, pa.ArrowInvalid) as error:
        raise EmbedkitError(f"{path}: {error}; run `embedkit verify`, which says how to fix it") from None
    return names


def text_columns(files: MergedFiles) -> list[str]:
    """Columns of the run's metadata that have texts."""
    stored = stored_texts(files.request)
    return [name for name in metadata_columns(files) if name in stored]


def is_text(vectors: Floats) -> npt.NDArray[np.bool_]:
    """Whether each row has a text: its vector is not zeros."""
    return np.asarray(vectors.any(axis=1), np.bool_)


def cells_for(rows: int) -> int:
    """Cells of an IVF index of so many vectors: four times the square root of their number, of enough rows each."""
    return max(min(4 * math.isqrt(rows), rows // ROWS_PER_CELL), 1)


def _checked_blocks(files: MergedFiles, table: Table) -> Iterator[Floats]:
    """All vectors of a table with files of its own. Raises EmbedkitError after the last of a file that is damaged."""
    start = 0
    for file in table.matrix.files:
        record, sha256 = _record(files, file.path), hashlib.sha256(file.header)
        for block in table.blocks(start, start + file.rows):
            sha256.update(to_stored(block, file.store).data)
            yield block
        start += file.rows
        if sha256.hexdigest() != record.sha256:
            raise EmbedkitError(
                f"{file.path}: its bytes are not those that were written (sha256 differs); run `embedkit verify`, "
                "which says how to fix it"
            )


def _record(files: MergedFiles, path: Path) -> FileRecord:
    """The record of a file of the run."""
    if path not in files.records or not path.is_file():
        raise EmbedkitError(
            f"{path}: missing, though the run is merged; run `embedkit verify`, which says how to fix it"
        )
    return files.records[path]
