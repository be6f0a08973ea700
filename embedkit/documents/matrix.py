"""A matrix of vectors in one file or in several that follow each other, memory-mapped and read as float32.

What was read can be released, so that memory stays flat however large the files are.
"""

import copy
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.documents.matrix_file import MatrixFile
from embedkit.documents.schema import Dtype
from embedkit.documents.stored_numbers import NUMPY_TYPES, Floats, Stored, from_stored

Ids = npt.NDArray[np.int64]

BLOCK_ROWS = 65_536
"""Rows of a block: 256 MB of 1,024 float32 each."""
GATHERED_ROWS = 256
"""Scattered rows to read before their pages are released. Each row touched in a mapped file can count as a megabyte or
more, because the kernel also maps what it read ahead."""


class Matrix:
    """Vectors by row, float32 (rows, dim), read-only. Nothing is in memory before it is read.

    files: those that have them, in order.

    It is indexed as an array is: `matrix[3]`, `matrix[3:9]`, `matrix[[3, 9]]`, `matrix[mask]`. `np.asarray(matrix)` has
    all rows; `matrix @ other` reads them in blocks.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, files: Sequence[MatrixFile]) -> None:
        """Map files whose rows follow each other.

        Raises EmbedkitError naming a file that has another shape, FileNotFoundError if there is none.
        """
        self.files = tuple(files)
        self._pieces = [_Piece(file) for file in files]
        self._starts = np.cumsum([0, *(file.rows for file in files)])
        self._ids: Ids | None = None  # the rows of the files that this matrix has; None for all
        self.shape = (int(self._starts[-1]), files[0].dim)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in float32."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def array(self) -> Floats | None:
        """The mapped file itself, if the matrix is one whole file of float32."""
        return self._pieces[0].numbers if self._is_one_array else None

    @property
    def _is_one_array(self) -> bool:
        return len(self.files) == 1 and self.files[0].store == "float32" and self._ids is None

    def select(self, ids: Ids) -> "Matrix":
        """The matrix of some rows of this one, in the order given."""
        chosen = copy.copy(self)
        chosen._ids = ids if self._ids is None else self._ids[ids]
        chosen.shape = (len(ids), self.shape[1])
        return chosen

    def path_of(self, row: int) -> Path:
        """The file that has a row."""
        id_ = row if self._ids is None else int(self._ids[row])
        return self.files[int(np.searchsorted(self._starts, id_, "right")) - 1].path

    def take(self, at: Ids) -> Floats:
        """Rows by position, float32 (n, dim): a view of the file where that is possible, otherwise a copy."""
        ids = at if self._ids is None else self._ids[at]
        if len(ids) and ids[-1] - ids[0] + 1 == len(ids) and (np.diff(ids) == 1).all():
            return self._range(int(ids[0]), int(ids[-1]) + 1)
        found = np.empty((len(ids), self.shape[1]), np.float32)
        for start in range(0, len(ids), GATHERED_ROWS):
            rows = slice(start, start + GATHERED_ROWS)
            self._gather(ids[rows], found[rows])
        return found

    def blocks(self, at: Ids | None = None, rows: int = BLOCK_ROWS) -> Iterator[tuple[slice, Floats]]:
        """Read rows by position, None for all, in blocks of at most `rows`. Yields where a block is, and its vectors.

        The pages of a block are released when the next is requested.
        """
        count = self.shape[0] if at is None else len(at)
        for start in range(0, count, rows):
            piece = slice(start, min(start + rows, count))
            yield piece, self.take(np.arange(piece.start, piece.stop) if at is None else at[piece])
            self.release()

    def read_ahead(self, start: int, stop: int) -> None:
        """Tell the kernel that rows [start, stop) are needed soon, unless they are scattered in the files."""
        if self._ids is None:
            self._advise(start, stop, "MADV_WILLNEED")

    def release(self, start: int = 0, stop: int | None = None) -> None:
        """Release the pages of rows [start, stop), or the files would stay in memory. Touched again, they are read."""
        self._advise(start, self.shape[0] if stop is None else stop, "MADV_DONTNEED")

    def _advise(self, start: int, stop: int, advice: str) -> None:
        if self._ids is not None:
            start, stop = 0, int(self._starts[-1])
        for piece, first, last in self._pieces_of(start, stop):
            piece.advise(first, last, advice)

    def _pieces_of(self, start: int, stop: int) -> Iterator[tuple["_Piece", int, int]]:
        """The files with rows [start, stop) of all, each with the rows in it."""
        number = int(np.searchsorted(self._starts, start, "right")) - 1
        while start < stop:
            first, last = int(self._starts[number]), min(stop, int(self._starts[number + 1]))
            if start < last:
                yield self._pieces[number], start - first, last - first
            start, number = last, number + 1

    def _range(self, start: int, stop: int) -> Floats:
        found = [piece.read(slice(first, last)) for piece, first, last in self._pieces_of(start, stop)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _gather(self, ids: Ids, found: Floats) -> None:
        numbers = np.searchsorted(self._starts, ids, "right") - 1
        for number in np.unique(numbers).tolist():
            here = numbers == number
            piece = self._pieces[number]
            found[here] = piece.read(ids[here] - self._starts[number])
            piece.advise(0, self.files[number].rows, "MADV_DONTNEED")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        rows, columns = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if isinstance(rows, int | np.integer):
            return self.take(np.array([range(len(self))[rows]]))[(0, *columns)]
        if isinstance(rows, slice):
            found = self.take(np.arange(*rows.indices(len(self))))
        else:
            found = self.take(self._positions(np.asarray(rows)))
        return found[(slice(None), *columns)] if columns else found

    def _positions(self, rows: npt.NDArray[Any]) -> Ids:
        """Positions that a mask or an array of integers stands for. Raises IndexError as NumPy does."""
        if rows.dtype == np.bool_:
            if rows.shape != (len(self),):
                raise IndexError(f"a mask of shape {rows.shape} for {len(self)} rows")
            return np.flatnonzero(rows)
        if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            raise IndexError("rows are chosen with an integer, a slice, or one dimension of integers or booleans")
        at = rows.astype(np.int64)
        outside = (at < -len(self)) | (at >= len(self))
        if outside.any():
            raise IndexError(f"row {at[outside][0]} is out of bounds: there are {len(self)} rows")
        return np.where(at < 0, at + len(self), at)

    def __array__(self, dtype: npt.DTypeLike = None, copy: bool | None = None) -> npt.NDArray[Any]:
        found = self.take(np.arange(len(self)))
        return np.array(found, dtype) if copy else found.astype(dtype or found.dtype, copy=False)

    def __matmul__(self, other: npt.ArrayLike) -> npt.NDArray[Any]:
        factor = np.asarray(other)
        blocks = [np.asarray(vectors @ factor) for _, vectors in self.blocks()]
        return np.concatenate(blocks) if blocks else self.take(np.empty(0, np.int64)) @ factor

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(np.ndarray, name):
            raise AttributeError(
                f"a Matrix, which may be larger than memory, has no {name!r}: np.asarray(...).{name} reads all "
                f"{self.nbytes / 1e9:,.1f} GB, and `blocks` reads a part at a time"
            )
        raise AttributeError(f"a Matrix has no {name!r}")

    def __repr__(self) -> str:
        files = f"{len(self.files):,} file{'s' if len(self.files) > 1 else ''} of {self.files[0].store}"
        return f"<Matrix of {self.shape[0]:,} x {self.shape[1]} float32, in {files}>"


def open_matrix(path: Path, rows: int, dim: int, store: Dtype = "float32") -> Matrix:
    """Map one matrix file: float32 (rows, dim). Raises as Matrix."""
    return Matrix([MatrixFile(path, rows, dim, store)])


class _Piece:
    """One mapped file."""

    def __init__(self, file: MatrixFile) -> None:
        self._store = file.store
        self._offset = file.check()
        self._row_bytes = file.row_bytes
        shape = (file.rows, file.dim)
        self.numbers: Stored = np.memmap(file.path, np.dtype(NUMPY_TYPES[file.store]), "r", self._offset, shape)
        self._mapped: mmap.mmap = getattr(self.numbers, "_mmap")  # noqa: B009 numpy's stubs do not have it

    def read(self, rows: slice | Ids) -> Floats:
        """Some rows, float32: a view of the file for a slice of float32."""
        return from_stored(self.numbers[rows], self._store)

    def advise(self, start: int, stop: int, advice: str) -> None:
        """Advise the kernel about the pages of rows [start, stop)."""
        if not hasattr(mmap, advice):
            return
        before = self._offset % mmap.ALLOCATIONGRANULARITY  # the mapping begins at a page
        first = (before + start * self._row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        last = before + stop * self._row_bytes
        self._mapped.madvise(getattr(mmap, advice), first, last - first)
