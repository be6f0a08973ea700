"""The types in which vectors are stored: float32, float16, and bfloat16.

bfloat16 is the upper half of a float32, rounded to nearest, ties to even (IEEE 754). NumPy has no such type, so its
bits are read and written as uint16.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.documents.schema import Dtype, TensorType

NUMPY_TYPES: Mapping[Dtype, str] = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
TENSOR_TYPES: Mapping[Dtype, TensorType] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Names of the types in safetensors files."""
LARGEST: Mapping[Dtype, float] = {
    "float32": float.fromhex("0x1.fffffep127"),
    "float16": 65504.0,
    "bfloat16": float.fromhex("0x1.fep127"),
}
"""The largest number of each type."""
SMALLEST: Mapping[Dtype, float] = {"float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
"""The smallest number above zero that has all digits of its type. Smaller ones lose digits."""
DIGITS: Mapping[Dtype, int] = {"float32": 24, "float16": 11, "bfloat16": 8}
"""Binary digits of a number of each type (IEEE 754)."""
BFLOAT16_NAN = np.uint32(0x7FC0)

Floats = npt.NDArray[np.float32]
Stored = npt.NDArray[Any]
"""Numbers as they are stored: those of NUMPY_TYPES."""


def item_bytes(store: Dtype) -> int:
    """Bytes of a stored number."""
    return np.dtype(NUMPY_TYPES[store]).itemsize


def to_stored(vectors: Floats, store: Dtype) -> Stored:
    """Numbers as they are stored, of the same shape, rounded to nearest, ties to even. Too large ones become infinity.

    float32 is not copied.
    """
    if store == "bfloat16":
        return bfloat16_bits(vectors)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(vectors, NUMPY_TYPES[store])


def from_stored(stored: Stored, store: Dtype) -> Floats:
    """The stored numbers, float32 of the same shape: exact. float32 is not copied."""
    return from_bfloat16(stored) if store == "bfloat16" else stored.astype(np.float32, copy=False)


def rounded(vectors: Floats, store: Dtype) -> Floats:
    """What reading gives of these numbers once they are stored, float32 of the same shape. float32 is not copied."""
    return from_stored(to_stored(vectors, store), store)


def bfloat16_bits(vectors: Floats) -> npt.NDArray[np.uint16]:
    """Numbers rounded to bfloat16, as its bits: uint16 of the same shape. NaN stays NaN, without its sign."""
    numbers = np.ascontiguousarray(vectors, "<f4")
    bits = numbers.view("<u4")
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    # Adding to the bits of NaN may carry into the sign, and give zero.
    return np.where(np.isnan(numbers), BFLOAT16_NAN, nearest).astype("<u2")


def from_bfloat16(bits: Stored) -> Floats:
    """Numbers of bfloat16 bits, float32 of the same shape."""
    numbers: Floats = (bits.astype("<u4") << np.uint32(16)).view("<f4")
    return numbers
