"""Vectors of a merged run, memory-mapped: read in blocks or by id, without keeping what was read in memory."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.documents import open_matrix
from embedkit.errors import EmbedkitError

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

BLOCK_ROWS = 65_536
"""Rows of a block: 256 MB of 1,024 float32 each."""
GATHERED_ROWS = 256
"""Scattered rows to read before their pages are released. Each row touched in a mapped file can count as a megabyte or
more, because the kernel also maps what it read ahead."""


def map_matrix(path: Path, rows: int, dim: int) -> Floats:
    """Memory-map a merged matrix: float32 (rows, dim), read-only.

    Raises EmbedkitError if the file is missing or has another shape.
    """
    if not path.is_file():
        raise EmbedkitError(
            f"{path}: missing, though the run is merged; run `embedkit verify`, which says how to fix it"
        )
    return open_matrix(path, rows, dim)


def take_vectors(matrix: Floats, ids: Ids) -> Floats:
    """Rows of a mapped matrix, float32 (n, D): a view of it for consecutive ids, otherwise a copy."""
    if len(ids) and ids[-1] - ids[0] + 1 == len(ids) and (np.diff(ids) == 1).all():
        return matrix[ids[0] : ids[-1] + 1]
    found = np.empty((len(ids), matrix.shape[1]), np.float32)
    for start in range(0, len(ids), GATHERED_ROWS):
        piece = slice(start, start + GATHERED_ROWS)
        found[piece] = matrix[ids[piece]]
        release(matrix)
    return found


def blocks_of(matrix: Floats, at: Ids, rows: int = BLOCK_ROWS) -> Iterator[tuple[slice, Floats]]:
    """Read rows of a mapped matrix in blocks of at most `rows`. Yields where the block is in `at`, and its vectors.

    The pages of a block are released when the next is requested.
    """
    for start in range(0, len(at), rows):
        piece = slice(start, min(start + rows, len(at)))
        yield piece, take_vectors(matrix, at[piece])
        release(matrix)


def release(matrix: Floats) -> None:
    """Release the pages read so far, or the whole file would stay in memory. Touched again, they are read again."""
    mapped = getattr(matrix, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
