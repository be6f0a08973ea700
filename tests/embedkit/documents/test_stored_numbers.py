"""Stored numbers are those that torch rounds to, and reading them is exact."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedkit.documents.schema import Dtype
from embedkit.documents.stored_numbers import (
    DIGITS,
    LARGEST,
    SMALLEST,
    TENSOR_TYPES,
    from_stored,
    item_bytes,
    rounded,
    to_stored,
)

STORES: tuple[Dtype, ...] = ("float32", "float16", "bfloat16")
BITS = st.integers(0, 2**32 - 1)
"""Every float32 by its bits: subnormals, infinities and NaN are as likely as their bits."""
HALVES = st.builds(
    lambda upper, lower: upper << 16 | lower, st.integers(0, 2**16 - 1), st.sampled_from([0x7FFF, 0x8000])
)
"""Numbers in the middle between two of bfloat16, and just below."""
NEAR_FLOAT16 = st.floats(-70000, 70000, width=32).map(lambda number: int(np.float32(number).view(np.uint32)))


def floats(bits: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    return bits.view(np.float32)


@pytest.mark.parametrize("store", STORES)
@given(bits=arrays.arrays(np.uint32, st.integers(1, 50), elements=BITS | HALVES | NEAR_FLOAT16))
@example(np.array([0, 1, 0x80000000, 0x80000001, 0x007FFFFF, 0x00800000], np.uint32))  # zeros and subnormals
@example(np.array([0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001], np.uint32))  # ties of bfloat16, and beside them
@example(np.array([0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F7FFF, 0x7F800000, 0xFF800000], np.uint32))  # largest, and infinities
@example(np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFFC00000], np.uint32))  # NaN
@example(np.array([0x477FE000, 0x477FEFFF, 0x477FF000, 0x33000000, 0x33000001, 0x387FE000], np.uint32))  # of float16
def test_a_stored_number_is_what_torch_rounds_to(store: Dtype, bits: npt.NDArray[np.uint32]) -> None:
    import torch

    numbers = floats(bits)
    wanted = torch.from_numpy(numbers.copy()).to(getattr(torch, store)).to(torch.float32).numpy()
    found = rounded(numbers, store)
    assert found.dtype == np.float32
    is_nan = np.isnan(numbers)
    assert np.isnan(found[is_nan]).all()
    assert found[~is_nan].tobytes() == wanted[~is_nan].tobytes()  # the sign of a zero, too


@pytest.mark.parametrize("store", ["float16", "bfloat16"])
def test_all_stored_numbers_are_read_and_stored_again_unchanged(store: Dtype) -> None:
    """All 65,536 of them but NaN: reading widens exactly, and rounding a number of the type changes nothing."""
    every = np.arange(2**16, dtype=np.uint16)
    stored = every if store == "bfloat16" else every.view(np.float16)
    numbers = from_stored(stored, store)
    is_number = ~np.isnan(numbers)
    again = to_stored(numbers, store)
    assert np.array_equal(again.view(np.uint16)[is_number], every[is_number])


def test_numbers_by_hand_in_each_type() -> None:
    """1 + 2^-8 lies between two numbers of bfloat16, and the even one is 1; 1 + 3 * 2^-8 goes up."""
    numbers = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1.5, 1 + 2**-11, 1 + 3 * 2**-11], np.float32)
    assert rounded(numbers, "bfloat16").tolist() == [1, 1 + 2 * 2**-7, -1.5, 1, 1]
    assert rounded(numbers, "float16").tolist() == [1 + 2**-8, 1 + 3 * 2**-8, -1.5, 1, 1 + 2 * 2**-10]
    assert rounded(numbers, "float32").tolist() == numbers.tolist()
    assert to_stored(numbers, "bfloat16").tolist() == [0x3F80, 0x3F82, 0xBFC0, 0x3F80, 0x3F80]
    assert to_stored(numbers, "float32") is numbers


def test_the_ends_of_each_type_are_those_of_torch() -> None:
    import torch

    for store in STORES:
        of_torch = torch.finfo(getattr(torch, store))
        assert (of_torch.max, of_torch.smallest_normal) == (LARGEST[store], SMALLEST[store])
        assert of_torch.eps == 2.0 ** (1 - DIGITS[store])
        assert of_torch.bits == 8 * item_bytes(store)
    assert TENSOR_TYPES == {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
