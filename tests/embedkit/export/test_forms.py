"""The forms of vectors, against sentence-transformers, torch and plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedkit.documents import bfloat16_bits, from_bfloat16
from embedkit.errors import UsageError
from embedkit.export.forms import Form, cut, from_int8, pack, to_int8, unpack

SIZES = st.tuples(st.integers(2, 40), st.integers(1, 21))
NUMBERS = st.floats(-1000, 1000, width=32)
MATRICES = arrays(np.float32, SIZES, elements=NUMBERS)


def ranges_of(vectors: np.ndarray) -> np.ndarray:
    return np.array([[min(column) for column in vectors.T], [max(column) for column in vectors.T]], np.float32)


@pytest.mark.slow
@given(MATRICES)
def test_int8_is_what_sentence_transformers_makes(vectors: np.ndarray) -> None:
    from sentence_transformers.util.quantization import quantize_embeddings

    assert (to_int8(vectors, ranges_of(vectors)) == quantize_embeddings(vectors, "int8")).all()


@pytest.mark.slow
@given(MATRICES)
def test_binary_is_what_sentence_transformers_packs(vectors: np.ndarray) -> None:
    """Also where the dimensions are no multiple of 8."""
    from sentence_transformers.util.quantization import quantize_embeddings

    assert (pack(vectors) == quantize_embeddings(vectors, "ubinary")).all()


@given(MATRICES)
def test_int8_keeps_every_number_within_a_step(vectors: np.ndarray) -> None:
    ranges = ranges_of(vectors)
    decoded = from_int8(to_int8(vectors, ranges), ranges)
    for at in range(vectors.shape[1]):
        low, high = float(ranges[0, at]), float(ranges[1, at])
        slack = (high - low) / 255 + 1e-5 * max(abs(low), abs(high)) + 1e-36
        assert all(abs(float(a) - float(b)) <= slack for a, b in zip(vectors[:, at], decoded[:, at], strict=True))


def test_a_dimension_that_never_changes_keeps_its_number() -> None:
    vectors = np.array([[0.25, 1.0], [0.25, 256.0]], np.float32)
    codes = to_int8(vectors, vectors)
    assert codes.tolist() == [[-128, -128], [-128, 127]]
    assert from_int8(codes, vectors).tolist() == [[0.25, 1.0], [0.25, 256.0]]


def test_codes_by_hand() -> None:
    """A range from 0 to 255 has a code for every whole number."""
    ranges = np.array([[0.0], [255.0]], np.float32)
    assert to_int8(np.array([[0], [0.99], [1], [127.5], [255]], np.float32), ranges).ravel().tolist() == [
        *(-128, -128, -127, -1, 127)
    ]


def test_bits_by_hand() -> None:
    vectors = np.array([[1, -1, 0, 2, 0, 0, 0, 0, 3], [0] * 9], np.float32)
    assert pack(vectors).tolist() == [[0b10010000, 0b10000000], [0, 0]]
    assert unpack(pack(vectors), 9)[0].tolist() == [1, -1, -1, 1, -1, -1, -1, -1, 1]


@given(MATRICES)
def test_bits_are_unpacked_to_the_signs(vectors: np.ndarray) -> None:
    signs = [[1.0 if number > 0 else -1.0 for number in row] for row in vectors.tolist()]
    assert unpack(pack(vectors), vectors.shape[1]).tolist() == signs


@pytest.mark.slow
@given(arrays(np.float32, SIZES, elements=st.floats(-(2.0**127), 2.0**127, width=32)))
def test_bfloat16_rounds_as_torch_does(vectors: np.ndarray) -> None:
    import torch

    rounded = torch.from_numpy(vectors).to(torch.bfloat16)
    assert (bfloat16_bits(vectors) == rounded.view(torch.uint16).numpy()).all()
    assert (from_bfloat16(bfloat16_bits(vectors)) == rounded.float().numpy()).all()


def test_bfloat16_by_hand() -> None:
    """1 has the bits 3F80; halves of the last bit go to the even neighbour."""
    numbers = [1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1, 0]
    wanted = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xBF80, 0]
    assert bfloat16_bits(np.array(numbers, np.float32)).tolist() == wanted
    assert from_bfloat16(np.array(wanted, np.uint16)).tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, -1, 0]


@given(MATRICES, st.data())
def test_cut_vectors_have_the_length_1(vectors: np.ndarray, data: st.DataObject) -> None:
    """And the direction of the first numbers. Zeros stay zeros."""
    dimensions = data.draw(st.integers(1, vectors.shape[1]))
    found = cut(vectors, dimensions)
    if dimensions == vectors.shape[1]:
        assert (found == vectors).all()
        return
    for row, kept in zip(vectors.tolist(), found.tolist(), strict=True):
        length = math.sqrt(sum(number * number for number in row[:dimensions]))
        wanted = [number / length if length else 0.0 for number in row[:dimensions]]
        assert kept == pytest.approx(wanted, abs=1e-6)


@given(MATRICES, st.sampled_from(["float32", "float16", "bfloat16", "int8", "binary"]))
def test_a_row_is_stored_alike_alone_and_in_a_block(vectors: np.ndarray, dtype: str) -> None:
    form = Form(vectors.shape[1], max(vectors.shape[1] - 1, 1), dtype)  # type: ignore[arg-type]
    kept = form.cut(vectors)
    form = form.with_ranges(ranges_of(kept))
    stored = form.stored(vectors)
    assert stored.shape == (len(vectors), form.width)
    assert stored.dtype == form.storage
    for row in range(len(vectors)):
        assert (form.stored(vectors[row : row + 1])[0] == stored[row]).all()


@pytest.mark.parametrize(("dtype", "largest"), [("float16", 65504.0), ("bfloat16", 3.3895313892515355e38)])
def test_numbers_over_the_type_are_refused(dtype: str, largest: float) -> None:
    form = Form(1, 1, dtype)  # type: ignore[arg-type]
    fits = np.array([[-1], [largest]], np.float32)
    assert np.isfinite(form.with_ranges(fits).decoded(form.stored(fits))).all()
    over = np.nextafter(fits, np.float32(np.inf))
    with pytest.raises(UsageError, match=f"--dtype {dtype}: the vectors have numbers up to .*; use float32"):
        form.with_ranges(over)


@pytest.mark.parametrize(
    ("dtype", "width", "size"), [("float32", 11, 44), ("float16", 11, 22), ("bfloat16", 11, 22), ("int8", 11, 11)]
)
def test_bytes_of_a_vector(dtype: str, width: int, size: int) -> None:
    form = Form(64, 11, dtype)  # type: ignore[arg-type]
    assert (form.width, form.vector_bytes) == (width, size)


def test_bytes_of_a_vector_of_bits_are_rounded_up() -> None:
    assert [Form(64, n, "binary").vector_bytes for n in (1, 8, 9, 64)] == [1, 1, 2, 8]
