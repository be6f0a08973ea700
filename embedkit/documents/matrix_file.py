"""Matrix files: safetensors files with one matrix of vectors, which can be written and read as a stream.

Source: the safetensors format: 8 bytes little-endian header length, a JSON header padded with spaces to a
multiple of 8, then the tensors' bytes, little-endian, row by row.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.documents.schema import Dtype
from embedkit.documents.stored_numbers import NUMPY_TYPES, TENSOR_TYPES, Floats, from_stored, item_bytes
from embedkit.errors import EmbedkitError

KEY = "embeddings"
ITEM_BYTES = 4
"""Bytes of a float32."""
ZERO_NORM = 1e-12
"""A vector shorter than this is a zero vector."""

NormRange = tuple[float, float] | None
"""The lengths of the shortest and of the longest vector that is not a zero vector; None if there is none."""


@dataclass(frozen=True)
class MatrixFile:
    """A file with a matrix of `rows` x `dim` numbers of the type `store`."""

    path: Path
    rows: int
    dim: int
    store: Dtype = "float32"

    @property
    def row_bytes(self) -> int:
        """Bytes of a vector."""
        return self.dim * item_bytes(self.store)

    @property
    def header(self) -> bytes:
        """The bytes before the data."""
        return matrix_header(self.rows, self.dim, self.store)

    def decoded(self, data: memoryview) -> Floats:
        """The vectors of whole rows of bytes, float32 (n, dim)."""
        return from_stored(np.frombuffer(data, NUMPY_TYPES[self.store]).reshape(-1, self.dim), self.store)

    def check(self) -> int:
        """Check header and size. Returns the offset of the data in bytes. Raises as check_matrix."""
        return check_matrix(self.path, self.rows, self.dim, self.store)


def matrix_header(rows: int, dim: int, store: Dtype = "float32") -> bytes:
    """The bytes before the data of a (rows, dim) matrix."""
    size = rows * dim * item_bytes(store)
    tensor = {"dtype": TENSOR_TYPES[store], "shape": [rows, dim], "data_offsets": [0, size]}
    header = json.dumps({KEY: tensor}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def check_matrix(path: Path, rows: int, dim: int, store: Dtype = "float32") -> int:
    """Check header and size of a matrix file. Returns the offset of the data in bytes.

    Raises EmbedkitError naming the file if it is not a (rows, dim) matrix of the type.
    """
    header = matrix_header(rows, dim, store)
    with path.open("rb") as file:
        found = file.read(len(header))
    size = path.stat().st_size
    if found != header or size != len(header) + rows * dim * item_bytes(store):
        raise EmbedkitError(f"{path}: not a whole matrix of {rows} x {dim} {store} ({size} bytes)")
    return len(header)


def row_norms(data: memoryview, row_bytes: int, store: Dtype = "float32") -> npt.NDArray[np.float32]:
    """The length of each row that the bytes begin with, float32 (rows,). Rows may have any value, NaN included."""
    count = len(data) // row_bytes
    stored = np.frombuffer(data[: count * row_bytes], NUMPY_TYPES[store]).reshape(count, row_bytes // item_bytes(store))
    rows = from_stored(stored, store)
    with np.errstate(all="ignore"):
        norms: npt.NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return norms


def norm_range(norms: npt.NDArray[np.float32]) -> NormRange:
    """The range of lengths of vectors, float32 (rows,)."""
    of_texts = norms[norms > ZERO_NORM]
    return (float(of_texts.min()), float(of_texts.max())) if len(of_texts) else None
