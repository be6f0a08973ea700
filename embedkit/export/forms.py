"""The forms of exported vectors: cut to fewer dimensions, and stored in fewer bits.

Sources: int8 and binary are those of `quantize_embeddings` of sentence-transformers 6.2, "int8" and "ubinary". float16
and bfloat16 are as in the run's own files (documents/stored_numbers.py).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embedkit.documents import LARGEST, NUMPY_TYPES, Floats, from_stored, to_stored
from embedkit.errors import UsageError

Stored = Literal["float32", "float16", "bfloat16", "int8", "binary"]
DTYPES: tuple[Stored, ...] = get_args(Stored)
STORAGE: dict[str, str] = {"int8": "|i1", "binary": "|u1"} | dict(NUMPY_TYPES.items())
LEVELS = 255
"""Steps between the smallest and the largest number of a dimension in int8."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Form:
    """What is done with a vector of `dim` numbers.

    dimensions: numbers that are kept: the first ones, normalized again if they are fewer than `dim`. ranges: float32
    (2, dimensions), the smallest and the largest number of each dimension over all rows, for int8; None for the others.
    """

    dim: int
    dimensions: int
    dtype: Stored
    ranges: Floats | None = None

    @property
    def storage(self) -> np.dtype[Any]:
        """Type of a stored number."""
        return np.dtype(STORAGE[self.dtype])

    @property
    def width(self) -> int:
        """Stored numbers of a vector: its dimensions; for binary the bytes that have their bits."""
        return -(-self.dimensions // 8) if self.dtype == "binary" else self.dimensions

    @property
    def vector_bytes(self) -> int:
        """Bytes of a stored vector."""
        return self.width * self.storage.itemsize

    def with_ranges(self, ranges: Floats) -> "Form":
        """This form with the ranges of all rows. Raises UsageError if the numbers of a row do not fit into the type."""
        largest = float(np.abs(ranges).max(initial=0))
        if self.dtype == "int8":
            return replace(self, ranges=ranges)
        if self.dtype != "binary" and largest > LARGEST[self.dtype]:
            raise UsageError(
                f"--dtype {self.dtype}: the vectors have numbers up to {largest:g}, and {self.dtype} ends at "
                f"{LARGEST[self.dtype]:g}; use float32" + (" or bfloat16" if self.dtype == "float16" else "")
            )
        return self

    def cut(self, vectors: Floats) -> Floats:
        """The kept dimensions of vectors (n, dim), float32 (n, dimensions). Zeros stay zeros."""
        return cut(vectors, self.dimensions)

    def stored(self, vectors: Floats) -> Array:
        """Vectors, float32 (n, dim), as they are stored: (n, width) of `storage`."""
        kept = self.cut(vectors)
        if self.dtype == "int8":
            return to_int8(kept, self._ranges)
        if self.dtype == "binary":
            return pack(kept)
        return to_stored(kept, self.dtype)

    def decoded(self, stored: Array) -> Floats:
        """What stored vectors stand for, float32 (n, dimensions): numbers; for binary 1 and -1."""
        if self.dtype == "int8":
            return from_int8(stored, self._ranges)
        if self.dtype == "binary":
            return unpack(stored, self.dimensions)
        return from_stored(stored, self.dtype)

    def query(self, vectors: Floats) -> Floats:
        """A query to compare with decoded vectors by cosine: cut; for binary as 1 and -1."""
        return self.decoded(self.stored(vectors)) if self.dtype == "binary" else self.cut(vectors)

    @property
    def _ranges(self) -> Floats:
        assert self.ranges is not None, "int8 needs the ranges of all rows"
        return self.ranges


def cut(vectors: Floats, dimensions: int) -> Floats:
    """The first dimensions of vectors, float32 (n, dimensions), normalized again if that cuts any off.

    Rows that are zeros stay zeros.
    """
    if dimensions == vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions].astype(np.float64)
    norms = np.sqrt(np.square(kept).sum(axis=1, keepdims=True))
    found: Floats = (kept / np.where(norms == 0, 1, norms)).astype(np.float32)
    return found


def to_int8(vectors: Floats, ranges: Floats) -> npt.NDArray[np.int8]:
    """Codes from -128 to 127: the interval of the dimension's range that has the number, of LEVELS equal ones.

    Args:
        vectors: float32 (n, d).
        ranges: float32 (2, d), the smallest and the largest number of each dimension.
    """
    codes: Floats = np.clip(np.floor((vectors - ranges[0]) / _steps(ranges)), 0, LEVELS)
    return (codes - np.float32(128)).astype(np.int8)


def from_int8(codes: Array, ranges: Floats) -> Floats:
    """The lower ends of the codes' intervals, float32 (n, d), as sentence-transformers decodes them."""
    decoded: Floats = (codes.astype(np.float32) + np.float32(128)) * _steps(ranges) + ranges[0]
    return decoded


def _steps(ranges: Floats) -> Floats:
    """Width of an interval by dimension, float32 (d,). A dimension that never changes has the width 1, and one code."""
    steps = (ranges[1] - ranges[0]) / np.float32(LEVELS)
    found: Floats = np.where(steps == 0, np.float32(1), steps)
    return found


def pack(vectors: Floats) -> npt.NDArray[np.uint8]:
    """One bit per number, set if it is over 0: uint8 (n, d / 8 rounded up), the first in the highest bit.

    The last byte is filled with zero bits.
    """
    return np.packbits(vectors > 0, axis=1)


def unpack(packed: Array, dimensions: int) -> Floats:
    """1 for a set bit and -1 for any other, float32 (n, dimensions)."""
    bits = np.unpackbits(packed, axis=1, count=dimensions)
    return bits.astype(np.float32) * np.float32(2) - np.float32(1)
