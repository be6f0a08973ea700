"""Compares a shard's matrix with its manifest: the header, every chunk and the whole file, in one reading.

The digests of the chunks were computed from the vectors in memory, before they were written. The digest of the whole
file was computed by reading it back. So the chunks decide: a byte that went bad before the file was read back is in the
file's digest, and not in its chunk's.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from embedkit.documents import (
    Chunk,
    Digests,
    Dtype,
    ShardManifest,
    StreamDigests,
    View,
    digests_in_pieces,
    item_bytes,
    matrix_header,
    size_problem,
)
from embedkit.embed.watchdog import renew_limit


def matrix_borders(chunks: Sequence[Chunk], rows: int, dim: int, store: Dtype = "float32") -> list[int]:
    """Where the header, each chunk and the file of a shard's matrix end, in bytes; the first border is 0.

    chunks: all chunks of the shard, in order. rows, dim: the shape of the matrix. store: type of its numbers.
    """
    first, offset, row_bytes = chunks[0].start, len(matrix_header(rows, dim, store)), dim * item_bytes(store)
    return [0, *(offset + (chunk.start - first) * row_bytes for chunk in chunks), offset + rows * row_bytes]


def differing_chunks(chunks: Sequence[Chunk], view: View, digests: Digests) -> list[Chunk]:
    """The chunks whose bytes are not those that were embedded. `digests` has the pieces of `matrix_borders`."""
    pieces = digests.pieces[1:]
    return [chunk for chunk, sha256 in zip(chunks, pieces, strict=True) if chunk.views[view].sha256 != sha256]


def has_right_header(rows: int, dim: int, digests: Digests, store: Dtype = "float32") -> bool:
    """Whether the first piece of `matrix_borders` is the header of a (rows, dim) matrix of the type."""
    return digests.pieces[0] == hashlib.sha256(matrix_header(rows, dim, store)).hexdigest()


class MatrixCheck:
    """Compares one view's matrix with the shard's manifest while somebody else reads it.

    merge copies the bytes that it checks, so it reads the file itself: it calls `update` with every byte in order, the
    header included, then `problem`. `matrix_problem` does the same for a file that is only checked.
    """

    def __init__(self, path: Path, manifest: ShardManifest, view: View) -> None:
        self._path = path
        self._manifest = manifest
        self._view = view
        self._digests = StreamDigests(_borders(manifest, view))

    def update(self, data: memoryview, beside: Executor | None = None) -> None:
        """Add the next bytes of the file. `beside` digests the whole file while this thread digests the chunk."""
        self._digests.update(data, beside)

    def problem(self) -> str | None:
        """What is wrong with the bytes, with the file and the first damaged ids; None if nothing is."""
        return _problem(self._path, self._manifest, self._view, self._digests.result())


def matrix_problem(path: Path, manifest: ShardManifest, view: View) -> str | None:
    """What is wrong with a shard's matrix file, with the first damaged ids; None if nothing is. Reads every byte."""
    matrix = manifest.matrices[view]
    problem = size_problem(path, matrix.file)
    if problem is not None:
        return problem
    digests = digests_in_pieces(path, _borders(manifest, view), progress=renew_limit)
    return _problem(path, manifest, view, digests)


def _borders(manifest: ShardManifest, view: View) -> list[int]:
    return matrix_borders(manifest.chunks, *manifest.matrices[view].shape, manifest.request.store)


def _problem(path: Path, manifest: ShardManifest, view: View, digests: Digests) -> str | None:
    matrix = manifest.matrices[view]
    damaged = differing_chunks(manifest.chunks, view, digests)
    first = f"; first damaged ids: {damaged[0].start} to {damaged[0].stop - 1}" if damaged else ""
    if digests.whole != matrix.file.sha256:
        return f"{path}: its bytes are not those that were written (sha256 differs){first}"
    if damaged:
        return f"{path}: its bytes were damaged before its manifest was written (sha256 of a chunk differs){first}"
    if not has_right_header(*matrix.shape, digests, manifest.request.store):
        return f"{path}: its header was damaged before its manifest was written"
    return None
