"""Which files a merged run has, in either layout. All that reads a merged run asks here.

merged: `all.safetensors` with all vectors, `metadata.parquet` with all rows, and the same of each source in
`by_source/`. sharded: `index.json` names the shards' matrices and the tables in `metadata/`, in the order of ids.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from embedkit.documents import (
    FileRecord,
    Matrix,
    MatrixFile,
    MergedIndex,
    Request,
    SourceRecord,
    Success,
    View,
    file_problem,
    read,
)
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder


class TableFile(NamedTuple):
    """A Parquet file with rows of a run: the id of its first row, and how many it has."""

    path: Path
    first_id: int
    rows: int


@dataclass(frozen=True)
class MergedFiles:
    """The files of a merged run. success: its `_SUCCESS.json`, which names the index."""

    run: RunFolder
    request: Request
    success: Success

    @property
    def is_sharded(self) -> bool:
        """Whether the vectors are in the shards' files."""
        return self.request.layout == "sharded"

    @cached_property
    def index(self) -> MergedIndex:
        """The index of the sharded layout. Raises EmbedkitError if it is missing, damaged, or not that of the run."""
        record = next((file for file in self.success.files if file.name == self.run.index.name), None)
        if record is None:
            raise EmbedkitError(f"{self.run.success}: does not name {self.run.index.name}; run `embedkit verify`")
        problem = file_problem(self.run.index, record)
        if problem is not None:
            raise EmbedkitError(f"{problem}; run `embedkit verify`, which says how to fix it")
        return read(self.run.index, MergedIndex)

    @cached_property
    def records(self) -> dict[Path, FileRecord]:
        """The files with rows and vectors, each with its record."""
        folder = self.run.embeddings
        found = {folder / record.name: record for record in self.success.files}
        if self.is_sharded:
            files = [table.file for table in self.index.tables]
            files += [file for shard in self.index.shards for file in shard.files.values()]
            found |= {folder / record.name: record for record in files}
        return found

    def matrix_files(self, view: View) -> tuple[MatrixFile, ...]:
        """The files with the vectors of a view, in the order of ids."""
        dim, store = self.success.dim, self.request.store
        if not self.is_sharded:
            return (MatrixFile(self.run.view_matrix(view), self.success.rows, dim, store),)
        return tuple(
            MatrixFile(self.run.embeddings / shard.files[view].name, shard.stop - shard.start, dim, store)
            for shard in self.index.shards
        )

    def matrix(self, view: View) -> Matrix:
        """The vectors of a view, by id. Raises EmbedkitError if a file is missing or has another shape."""
        return _mapped(self.matrix_files(view))

    def source_file(self, source: SourceRecord, view: View) -> MatrixFile | None:
        """The file with the vectors of one source alone; None if there is none, as in the sharded layout."""
        if self.is_sharded:
            return None
        path = self.run.source_matrix(source.folder, view)
        return MatrixFile(path, source.rows, self.success.dim, self.request.store)

    def source_matrix(self, source: SourceRecord, view: View) -> Matrix | None:
        """The vectors of one source, if it has a file of its own. Raises as `matrix`."""
        file = self.source_file(source, view)
        return None if file is None else _mapped((file,))

    @property
    def tables(self) -> tuple[TableFile, ...]:
        """The tables with the rows, in the order of ids."""
        if not self.is_sharded:
            return (TableFile(self.run.metadata, 0, self.success.rows),)
        folder = self.run.embeddings
        return tuple(TableFile(folder / table.file.name, table.first_id, table.rows) for table in self.index.tables)

    def source_table(self, source: SourceRecord) -> TableFile | None:
        """The table with the rows of one source alone; None if there is none, as in the sharded layout."""
        if self.is_sharded:
            return None
        return TableFile(self.run.source_metadata(source.folder), 0, source.rows)


def _mapped(files: tuple[MatrixFile, ...]) -> Matrix:
    for file in files:
        if not file.path.is_file():
            raise EmbedkitError(
                f"{file.path}: missing, though the run is merged; run `embedkit verify`, which says how to fix it"
            )
    return Matrix(files)
