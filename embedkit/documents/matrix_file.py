"""Matrix files: safetensors files with one float32 matrix, which can be written and read as a stream.

Source: the safetensors format: 8 bytes little-endian header length, a JSON header padded with spaces to a
multiple of 8, then the tensors' bytes, little-endian, row by row.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.errors import EmbedkitError

KEY = "embeddings"
ITEM_BYTES = 4


def matrix_header(rows: int, dim: int) -> bytes:
    """The bytes before the data of a (rows, dim) float32 matrix."""
    tensor = {"dtype": "F32", "shape": [rows, dim], "data_offsets": [0, rows * dim * ITEM_BYTES]}
    header = json.dumps({KEY: tensor}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def check_matrix(path: Path, rows: int, dim: int) -> int:
    """Check header and size of a matrix file. Returns the offset of the data in bytes.

    Raises EmbedkitError naming the file if it is not a (rows, dim) float32 matrix.
    """
    header = matrix_header(rows, dim)
    with path.open("rb") as file:
        found = file.read(len(header))
    size = path.stat().st_size
    if found != header or size != len(header) + rows * dim * ITEM_BYTES:
        raise EmbedkitError(f"{path}: not a whole matrix of {rows} x {dim} float32 ({size} bytes)")
    return len(header)


def row_norms(data: memoryview, row_bytes: int) -> npt.NDArray[np.float32]:
    """The length of each row that the bytes begin with, float32 (rows,). Rows may have any value, NaN included."""
    count = len(data) // row_bytes
    rows = np.frombuffer(data[: count * row_bytes], "<f4").reshape(count, row_bytes // ITEM_BYTES)
    with np.errstate(all="ignore"):
        norms: npt.NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return norms


def open_matrix(path: Path, rows: int, dim: int) -> npt.NDArray[np.float32]:
    """Memory-map the matrix: float32 (rows, dim). Raises as check_matrix."""
    offset = check_matrix(path, rows, dim)
    return np.memmap(path, np.dtype("<f4"), "r", offset, (rows, dim))
