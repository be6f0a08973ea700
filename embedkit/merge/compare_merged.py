"""Compares the files of the merged layout: the whole matrices with the shards' chunks, and the sources' with those.

Memory holds hashes of all rows and vectors, about 20 bytes per row.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from embedkit.documents import Chunk, MatrixFile, ReadBack, ShardManifest, View
from embedkit.errors import EmbedkitError
from embedkit.merge.comparison import Comparison, Ids, MergedProblem, MergeInputs, PartRows, first_difference


class MergedComparison(Comparison):
    """Compares `metadata.parquet`, `by_source/`, and the matrix of each view, `all.safetensors`."""

    def __init__(self, merge: MergeInputs, read_back: ReadBack) -> None:
        """Start to read all files: matrices row by row, and the whole ones chunk by chunk; tables row by row."""
        super().__init__(merge, [merge.plan.parts], read_back)
        self._kept: PartRows | None = None
        run, rows = merge.run, merge.plan.rows_kept
        starts = [chunk.start for manifest in merge.manifests for chunk in manifest.chunks]
        borders = [*starts, rows] if merge.has_all_shards else [0]
        for view in merge.request.views:
            self._submit(run.view_matrix(view), rows, borders)
            for source in merge.success.sources.values():
                self._submit(run.source_matrix(source.folder, view), source.rows, [0])
        for record in merge.success.files:
            if record.name.endswith(".parquet"):
                read_back.submit_table(run.embeddings / record.name, record, self.hashed, ["id"], soon=False)

    def _submit(self, path: Path, rows: int, borders: Sequence[int]) -> None:
        """Start to read a matrix. borders: rows at which its pieces begin, and where the last one ends."""
        if path.is_file():
            matrix = self._matrix(path, rows)
            offsets = [len(matrix.header) + row * matrix.row_bytes for row in borders]
            self._read_back.submit_matrix(path, matrix.row_bytes, offsets, hash_rows=True, store=matrix.store)

    def _matrix(self, path: Path, rows: int) -> MatrixFile:
        return MatrixFile(path, rows, self._merge.success.dim, self._merge.request.store)

    def _add_group(self, group: int, rows: PartRows | None) -> None:
        self._kept = rows

    def _differences(self, damaged: set[Path]) -> Iterator[MergedProblem]:
        for view in self._merge.request.views:
            path = self._merge.run.view_matrix(view)
            if path not in damaged:
                yield from self._whole_matrix(view, path, damaged)
        if self._kept is None:
            return  # a part is damaged
        problems = list(self._of_sources())
        yield from problems
        if not problems:
            yield from self._unnamed(self._all_files())
            yield from self._contents(self._kept, damaged)

    def _whole_matrix(self, view: View, path: Path, damaged: set[Path]) -> Iterator[MergedProblem]:
        """Compare a view's matrix with the chunks of the shards, and add it to `damaged` if it differs."""
        yield from _shape_problems(self._matrix(path, self._merge.plan.rows_kept))
        pieces = self._read_back.pieces(path)
        for shard, chunk in differing_chunks(self._merge.manifests, view, pieces).items():
            damaged.add(path)  # the sources' vectors are not compared with it
            yield MergedProblem(path, f"ids {chunk.start} to {chunk.stop - 1} are not the shard's", shard)

    def _all_files(self) -> list[Path]:
        """The files that the run must have."""
        run, views = self._merge.run, self._merge.request.views
        files = [run.metadata, *(run.view_matrix(view) for view in views)]
        for source in self._sources.records.values():
            files += [run.source_metadata(source.folder), *(run.source_matrix(source.folder, view) for view in views)]
        return files

    def _contents(self, kept: PartRows, damaged: set[Path]) -> Iterator[MergedProblem]:
        """Compare the rows with those of the parts, and the sources' vectors with the whole matrices."""
        run = self._merge.run
        yield from self._rows(run.metadata, kept, kept.ids)
        counts = np.bincount(kept.codes, minlength=len(self._sources.names))
        ids_of = np.split(np.argsort(kept.codes, kind="stable"), np.cumsum(counts)[:-1])
        ids_by_name = dict(zip(self._sources.names, ids_of, strict=True))
        for name, source in self._sources.records.items():
            ids = ids_by_name[name]
            yield from self._rows(run.source_metadata(source.folder), kept, ids)
            for view in self._merge.request.views:
                path = run.source_matrix(source.folder, view)
                if path not in damaged:
                    yield from self._vectors(path, run.view_matrix(view), kept, ids, damaged)

    def _vectors(
        self, path: Path, whole: Path, kept: PartRows, ids: Ids, damaged: set[Path]
    ) -> Iterator[MergedProblem]:
        """Compare the matrix of a source with the rows of the whole matrix that have these ids."""
        problems = list(_shape_problems(self._matrix(path, len(ids))))
        yield from problems
        of_run = self._read_back.row_hashes(whole)
        found = self._read_back.row_hashes(path)
        if problems or whole in damaged or len(of_run) != len(kept.hashes) or len(found) != len(ids):
            return
        at = first_difference(found, of_run[ids])
        if at is not None:
            yield MergedProblem(path, f"its vector {at} is not that of {self._named(kept, int(ids[at]))}")


def _shape_problems(matrix: MatrixFile) -> Iterator[MergedProblem]:
    """Yield a problem unless a file has the matrix that it should have."""
    try:
        matrix.check()
    except (EmbedkitError, OSError) as error:
        yield MergedProblem(matrix.path, str(error))


def differing_chunks(manifests: Iterable[ShardManifest], view: View, pieces: Sequence[str]) -> dict[int, Chunk]:
    """By shard, the first chunk whose digest differs from the one that was read.

    `pieces` has the sha256 of every chunk of these shards, in order; if it is empty, nothing differs.
    """
    found = iter(pieces)
    differing: dict[int, Chunk] = {}
    for manifest in manifests:
        for chunk, sha256 in zip(manifest.chunks, islice(found, len(manifest.chunks)), strict=False):
            if sha256 != chunk.views[view].sha256:
                differing.setdefault(manifest.shard, chunk)
    return differing
