"""Merge vectors: a view's shards into one matrix of all rows and one matrix per source, in windows of rows.

While one window is written to both, the next is read. Every byte is checked when it is read, against the sha256 of the
shard's file and of its chunk in the manifest, and hashed when it is written.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from embedkit.data import SourceIndex
from embedkit.documents import (
    NUMPY_TYPES,
    Dtype,
    FileSet,
    HashedFile,
    ShardManifest,
    Stored,
    View,
    check_matrix,
    item_bytes,
    matrix_header,
)
from embedkit.embed import MatrixCheck
from embedkit.errors import EmbedkitError
from embedkit.log_progress import LogProgress
from embedkit.run import RunFolder
from embedkit.storage import BLOCK_BYTES, read_into

log = logging.getLogger(__name__)

WINDOW_BYTES = 48 << 20
"""Three buffers of this size are in memory: one is read into, one is written, one has the latter's rows by source."""


def merge_vectors(
    run: RunFolder, manifests: Sequence[ShardManifest], sources: SourceIndex, view: View, files: FileSet
) -> dict[int, str]:
    """Write a view's matrices into `files`. Returns the problems by shard; if there are any, discard the files."""
    rows, dim, store = manifests[-1].stop, manifests[0].engine.dim, manifests[0].request.store
    window_rows = max(min(WINDOW_BYTES // (dim * item_bytes(store)), rows), 1)
    buffers = [np.empty((window_rows, dim), NUMPY_TYPES[store]) for _ in range(2)]
    whole = _begin(files, run.view_matrix(view), rows, dim, store)
    by_source = _BySource(run, sources, buffers[0], view, files, store)
    progress = LogProgress(log, f"merge vectors ({view})", rows, "rows")
    with ThreadPoolExecutor(1, "hash") as beside, ThreadPoolExecutor(2, "write") as pool:
        shards = _Shards(run, manifests, view, beside)
        writes: list[Future[None]] = []
        for number, first in enumerate(range(0, rows, window_rows)):
            window = buffers[number % 2][: rows - first]
            shards.read(first, window)
            for write in writes:
                write.result()
            writes = [pool.submit(_write, whole, window), pool.submit(by_source.write, first, window)]
            progress.add(len(window))
        for write in writes:
            write.result()
    return shards.problems


def _begin(files: FileSet, path: Path, rows: int, dim: int, store: Dtype) -> HashedFile:
    file = files.add(path)
    file.write(matrix_header(rows, dim, store))
    return file


def _write(file: HashedFile, rows: Stored) -> None:
    file.write(rows.data)


class _Shards:
    """The shards' rows in order of their ids. `problems` has the problem of each damaged shard so far."""

    def __init__(
        self, run: RunFolder, manifests: Sequence[ShardManifest], view: View, beside: ThreadPoolExecutor
    ) -> None:
        self.problems: dict[int, str] = {}
        self._run = run
        self._view = view
        self._beside = beside
        self._manifests = iter(manifests)
        self._stop = 0
        self._shard: _OpenShard | None = None

    def read(self, first: int, window: Stored) -> None:
        """Fill a window, (n, dim), with the rows of ids first, first + 1, ...; undefined for a damaged shard."""
        at, stop = first, first + len(window)
        while at < stop:
            if at == self._stop:
                self._open_next()
            end = min(stop, self._stop)
            self._read(window[at - first : end - first], is_last=end == self._stop)
            at = end

    def _open_next(self) -> None:
        manifest = next(self._manifests)
        self._stop = manifest.stop
        try:
            self._shard = _OpenShard(self._run, manifest, self._view, self._beside)
        except (EmbedkitError, OSError) as error:
            self.problems[manifest.shard] = str(error)
            self._shard = None

    def _read(self, rows: Stored, is_last: bool) -> None:
        if self._shard is None:
            return
        try:
            self._shard.read(rows)
            if is_last:
                self._shard.check()
        except (EmbedkitError, OSError) as error:
            self.problems[self._shard.shard] = str(error)
            is_last = True
        if is_last:
            self._shard.close()
            self._shard = None


class _OpenShard:
    """A shard's matrix file, read from its first row to its last. `beside` digests the whole file in another thread."""

    def __init__(self, run: RunFolder, manifest: ShardManifest, view: View, beside: ThreadPoolExecutor) -> None:
        matrix = manifest.matrices[view]
        self.shard = manifest.shard
        self._path = run.shard(manifest.shard) / matrix.file.name
        self._check = MatrixCheck(self._path, manifest, view)
        self._beside = beside
        if not self._path.is_file():
            raise EmbedkitError(f"{self._path} is missing")
        offset = check_matrix(self._path, *matrix.shape, manifest.request.store)
        self._file = self._path.open("rb", buffering=0)
        self._check.update(memoryview(self._file.read(offset)))

    def read(self, rows: Stored) -> None:
        """Read the next rows into an array."""
        data = rows.data.cast("B")
        while data:
            count = read_into(self._file, data[:BLOCK_BYTES])
            if not count:
                raise EmbedkitError(f"{self._path}: shrank while it was read")
            self._check.update(data[:count], self._beside)
            data = data[count:]

    def check(self) -> None:
        """Raise EmbedkitError if the bytes, all of which were read, differ from the manifest's: its file or a chunk."""
        problem = self._check.problem()
        if problem is not None:
            raise EmbedkitError(problem)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _BySource:
    """One matrix file per source. window: an array of the shape and type of the largest window."""

    def __init__(
        self, run: RunFolder, sources: SourceIndex, window: Stored, view: View, files: FileSet, store: Dtype
    ) -> None:
        self._codes = sources.codes
        self._files = [
            _begin(files, run.source_matrix(sources.folder(code), view), int(rows), window.shape[1], store)
            for code, rows in enumerate(sources.counts)
        ]
        self._sorted = np.empty_like(window)

    def write(self, first: int, window: Stored) -> None:
        """Append each row of a window, ids first, first + 1, ..., to its source's file."""
        codes = self._codes[first : first + len(window)]
        order = np.argsort(codes, kind="stable")
        # With mode="raise", numpy would copy into a buffer of its own first.
        by_source = np.take(window, order, axis=0, out=self._sorted[: len(window)], mode="clip")
        present, starts = np.unique(codes[order], return_index=True)
        for code, rows in zip(present, np.split(by_source, starts[1:]), strict=True):
            self._files[code].write(rows.data)
