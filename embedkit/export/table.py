"""The rows of a merged run as a stream: vectors in blocks and columns of metadata in batches, of the run or one source.

Nothing is mapped into memory, so the memory of an export does not grow with the rows.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents import (
    ITEM_BYTES,
    FileRecord,
    Floats,
    RunConfig,
    Success,
    View,
    check_matrix,
    file_problem,
    read,
)
from embedkit.errors import EmbedkitError
from embedkit.export.forms import cut
from embedkit.prepare import stored_texts
from embedkit.run import RunFolder
from embedkit.storage import read_into

BLOCK_BYTES = 16 << 20
"""Bytes of vectors that are read at once."""
ROWS_PER_CELL = 39
"""faiss warns if it trains cells with fewer."""

Advance = Callable[[int], object]
"""Called with the number of rows that were done."""


@dataclass(frozen=True)
class Table:
    """Rows of a merged run, in order: of the whole run, or of one source.

    folder: where their files are in an export, relative to it. matrix, metadata: the run's files with them.
    """

    folder: str
    matrix: Path
    metadata: Path
    rows: int
    dim: int

    @property
    def block_rows(self) -> int:
        """Rows of a block of vectors."""
        return max(BLOCK_BYTES // (self.dim * ITEM_BYTES), 1)

    def name(self, file: str) -> str:
        """The name of a file of these rows, relative to the export's folder."""
        return f"{self.folder}/{file}" if self.folder else file

    def vectors(self, start: int, stop: int) -> Floats:
        """Vectors of rows [start, stop), float32 (n, dim)."""
        return next(self.blocks(start, stop, stop - start))

    def blocks(self, start: int = 0, stop: int | None = None, rows: int | None = None) -> Iterator[Floats]:
        """Yield the vectors of rows [start, stop) in blocks, float32 (n, dim)."""
        rows, stop = rows or self.block_rows, self.rows if stop is None else stop
        offset = check_matrix(self.matrix, self.rows, self.dim)
        with self.matrix.open("rb", buffering=0) as file:
            file.seek(offset + start * self.dim * ITEM_BYTES)
            for first in range(start, stop, rows):
                block = np.empty((min(rows, stop - first), self.dim), "<f4")
                if read_into(file, block.data.cast("B")) < block.nbytes:
                    raise EmbedkitError(f"{self.matrix}: shrank while it was read")
                yield block

    def lines(self, columns: Sequence[str], start: int, stop: int, rows: int) -> Iterator[pa.Table]:
        """Yield columns of the metadata of rows [start, stop), `rows` at a time."""
        with pq.ParquetFile(self.metadata, pre_buffer=False) as parquet:
            counts = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
            ends = np.cumsum(counts)
            groups = [i for i, end in enumerate(ends) if end > start and end - counts[i] < stop]
            at = int(ends[groups[0]] - counts[groups[0]]) if groups else 0
            pending: list[pa.Table] = []
            for batch in parquet.iter_batches(min(rows, 4096), row_groups=groups, columns=list(columns)):
                piece = batch.slice(max(start - at, 0), max(stop - max(start, at), 0))
                at += batch.num_rows
                pending.append(pa.Table.from_batches([piece]).select(list(columns)))
                while sum(table.num_rows for table in pending) >= rows:
                    whole = pa.concat_tables(pending)
                    yield whole.slice(0, rows).combine_chunks()
                    pending = [whole.slice(rows)]
            rest = pa.concat_tables(pending) if pending else None
            if rest is not None and rest.num_rows:
                yield rest.combine_chunks()


@dataclass(frozen=True)
class Survey:
    """What one pass over all vectors found. ranges: float32 (2, dimensions) of the kept dimensions of all rows.

    with_text: rows of each table whose vectors are not zeros.
    """

    ranges: Floats
    with_text: tuple[int, ...]


def whole_run(run: RunFolder, success: Success, view: View) -> Table:
    """All rows of a run."""
    return Table("", run.view_matrix(view), run.metadata, success.rows, success.dim)


def tables_of(run: RunFolder, success: Success, view: View, by_source: bool) -> tuple[Table, ...]:
    """The rows of a run: all, or one table per source."""
    if not by_source:
        return (whole_run(run, success, view),)
    return tuple(
        Table(
            f"by_source/{source.folder}",
            run.source_matrix(source.folder, view),
            run.source_metadata(source.folder),
            source.rows,
            success.dim,
        )
        for _, source in sorted(success.sources.items())
    )


def survey(run: RunFolder, success: Success, tables: Sequence[Table], dimensions: int, advance: Advance) -> Survey:
    """Read all vectors and metadata once: compare their bytes with `_SUCCESS.json`, and find the ranges of the numbers.

    Raises EmbedkitError naming a file that is missing or damaged.
    """
    records = {run.embeddings / record.name: record for record in success.files}
    lowest = np.full(dimensions, np.inf, np.float32)
    highest = -lowest
    counts = []
    for table in tables:
        _require_record(table.metadata, records)
        if problem := file_problem(table.metadata, records[table.metadata]):
            raise EmbedkitError(f"{problem}; run `embedkit verify`, which says how to fix it")
        count = 0
        for block in _checked_blocks(table, records):
            kept = cut(block, dimensions)
            np.minimum(lowest, kept.min(axis=0), out=lowest)
            np.maximum(highest, kept.max(axis=0), out=highest)
            count += int(block.any(axis=1).sum())
            advance(len(block))
        counts.append(count)
    return Survey(np.stack([lowest, highest]), tuple(counts))


def require_unchanged(run: RunFolder, success: Success) -> None:
    """Raise EmbedkitError if the run was merged again since `success` was read."""
    if not run.success.exists() or read(run.success, Success) != success:
        raise EmbedkitError(f"{run.path}: the run was merged again during the export; export it again")


def metadata_columns(run: RunFolder) -> list[str]:
    """Columns of the run's metadata, in order. Raises EmbedkitError if it cannot be read."""
    try:
        names: list[str] = pq.read_schema(run.metadata).names
    except (OSError, pa.ArrowInvalid) as error:
        raise EmbedkitError(f"{run.metadata}: {error}; run `embedkit verify`, which says how to fix it") from None
    return names


def text_columns(run: RunFolder) -> list[str]:
    """Columns of the run's metadata that have texts."""
    stored = stored_texts(read(run.config, RunConfig).request)
    return [name for name in metadata_columns(run) if name in stored]


def is_text(vectors: Floats) -> npt.NDArray[np.bool_]:
    """Whether each row has a text: its vector is not zeros."""
    return np.asarray(vectors.any(axis=1), np.bool_)


def cells_for(rows: int) -> int:
    """Cells of an IVF index of so many vectors: four times the square root of their number, of enough rows each."""
    return max(min(4 * math.isqrt(rows), rows // ROWS_PER_CELL), 1)


def _checked_blocks(table: Table, records: dict[Path, FileRecord]) -> Iterator[Floats]:
    _require_record(table.matrix, records)
    offset = check_matrix(table.matrix, table.rows, table.dim)
    sha256 = hashlib.sha256()
    with table.matrix.open("rb") as file:
        sha256.update(file.read(offset))
    for block in table.blocks():
        sha256.update(block.data)
        yield block
    if sha256.hexdigest() != records[table.matrix].sha256:
        raise EmbedkitError(
            f"{table.matrix}: its bytes are not those that were written (sha256 differs); run `embedkit verify`, "
            "which says how to fix it"
        )


def _require_record(path: Path, records: dict[Path, FileRecord]) -> None:
    if path not in records or not path.is_file():
        raise EmbedkitError(
            f"{path}: missing, though the run is merged; run `embedkit verify`, which says how to fix it"
        )
