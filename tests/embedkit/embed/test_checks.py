"""Checks of vectors, just inside and just outside each tolerance. Expected numbers are written by hand."""

import hashlib
import struct
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.documents.schema import Dtype
from embedkit.embed.checks import check_vectors, differing_rows
from embedkit.embed.inputs import ChunkInput, inputs_digest
from embedkit.errors import EmbedkitError
from embedkit.model.tokenizer import TokenIds
from embedkit.row_keys import no_copies

SAME_ROW: dict[Dtype, float] = {"float32": 1e-5, "bfloat16": 2e-3, "float16": 5e-4}
"""The largest 1 - cosine between two vectors of one row, as docs and measurements have it."""
INSIDE, OUTSIDE = 0.6, 1.6
"""Of a tolerance: near enough that half of it, or twice, would fail a test."""
DTYPES: tuple[Dtype, ...] = get_args(Dtype)


def texts(*lengths: int) -> TokenIds:
    """Texts of these lengths, with the ids 1, 2, 3 and so on."""
    return TokenIds(np.arange(1, sum(lengths) + 1, dtype=np.uint32), np.cumsum([0, *lengths]))


def chunk(*lengths: int) -> ChunkInput:
    """Rows 70, 71, ... of the data set, with ids from 7 on."""
    rows = np.arange(70, 70 + len(lengths))
    return ChunkInput(7, 7 + len(lengths), rows, {"combined": texts(*lengths)}, no_copies(len(lengths), 1))


def turned(distance: float, scale: float = 1.0) -> npt.NDArray[np.float32]:
    """A vector whose cosine with (1, 0, 0) is 1 - distance."""
    cosine = 1 - distance
    return np.array([cosine * scale, np.sqrt(1 - cosine**2) * scale, 0], np.float32)


E1 = np.array([1, 0, 0], np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_embedded_again_may_turn_by_the_tolerance(dtype: Dtype) -> None:
    """Inside it is the same vector, outside a different one; the length of a vector does not count."""
    again = {"combined": np.stack([E1, E1, E1, E1 * 3])}
    near, far = INSIDE * SAME_ROW[dtype], OUTSIDE * SAME_ROW[dtype]
    stored = {"combined": np.stack([turned(near), turned(far), turned(near, 5), turned(far, 5)])}
    found = differing_rows(chunk(4, 4, 4, 4), again, stored, dtype)
    assert [(view, at) for view, at, _ in found] == [("combined", 1), ("combined", 3)]
    assert [distance for *_, distance in found] == pytest.approx([far, far], rel=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_that_cannot_be_compared_differ(dtype: Dtype) -> None:
    odd = np.array([[np.nan, 0, 0], [np.inf, 0, 0]], np.float32)
    stored = np.concatenate([np.stack([E1, -E1, E1 * 0]), odd])
    found = differing_rows(chunk(1, 1, 1, 1, 1), {"combined": np.stack([E1] * 5)}, {"combined": stored}, dtype)
    assert [at for _, at, _ in found] == [1, 2, 3, 4]
    assert found[0][2] == 2.0


def test_a_row_without_text_must_be_zeros() -> None:
    again = {"combined": np.zeros((3, 3), np.float32)}
    stored = {"combined": np.stack([E1 * 0, E1, E1 * np.float32(1e-30)])}
    assert [at for _, at, _ in differing_rows(chunk(0, 0, 0), again, stored, "float32")] == [1, 2]


def test_differing_rows_are_found_in_every_view() -> None:
    rows = ChunkInput(0, 2, np.arange(2), {"think": texts(0, 2), "response": texts(3, 3)}, no_copies(2, 2))
    again = {"think": np.stack([E1 * 0, E1]), "response": np.stack([E1, E1])}
    stored = {"think": np.stack([E1 * 0, -E1]), "response": np.stack([turned(0.1), E1])}
    assert [found[:2] for found in differing_rows(rows, again, stored, "bfloat16")] == [("think", 1), ("response", 0)]


def test_a_vector_of_1e_12_is_zero() -> None:
    """A little less is a zero vector, a little more is not. Only rows with a text are checked."""
    short, long = (np.array([size, 0, 0], np.float32) for size in (6e-13, 1.6e-12))
    assert check_vectors(chunk(1), {"combined": long[None]})["combined"].norm_min == pytest.approx(1.6e-12)
    with pytest.raises(EmbedkitError, match=r"^row 71: only zeros in its vector \(view combined, 1 such rows\)$"):
        check_vectors(chunk(1, 1, 0), {"combined": np.stack([long, short, E1 * 0])})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named_by_row(value: float) -> None:
    vectors = np.stack([E1, E1, E1, E1])
    vectors[2:, 1] = value
    with pytest.raises(EmbedkitError, match=r"^row 72: NaN or infinity in its vector \(view combined, 2 such rows\)$"):
        check_vectors(chunk(1, 1, 1, 1), {"combined": vectors})


def test_a_chunks_norms_and_digest_are_those_of_its_texts() -> None:
    """3-4-0 has norm 5, 0-5-12 has 13, and the row without text does not count."""
    vectors = np.array([[0, 5, 12], [0, 0, 0], [3, 4, 0]], np.float32)
    found = check_vectors(chunk(2, 0, 1), {"combined": vectors})["combined"]
    assert (found.norm_min, found.norm_max, found.empty) == (5.0, 13.0, 1)
    assert found.sha256 == hashlib.sha256(struct.pack("<9f", 0, 5, 12, 0, 0, 0, 3, 4, 0)).hexdigest()
    nothing = check_vectors(chunk(0, 0), {"combined": np.zeros((2, 3), np.float32)})["combined"]
    assert (nothing.norm_min, nothing.norm_max, nothing.empty) == (None, None, 2)


def test_norms_are_summed_in_float64() -> None:
    """The squares of these numbers overflow float32, which the vectors do not."""
    found = check_vectors(chunk(1), {"combined": np.array([[3e25, 4e25, 0]], np.float32)})["combined"]
    assert found.norm_max == pytest.approx(5e25, rel=1e-6)


def test_inputs_are_digested_row_by_row_with_their_lengths() -> None:
    """Two views: rows 5 and 9, with ids [1, 2] and [] in one view, [1] and [2, 3] in the other."""
    first = ChunkInput(0, 2, np.array([5, 9]), {"think": texts(2, 0), "response": texts(1, 2)}, no_copies(2, 2))
    packed = struct.pack("<qIIIII", 5, 2, 1, 2, 1, 1) + struct.pack("<qIIII", 9, 0, 2, 2, 3)
    assert inputs_digest(first) == hashlib.sha256(packed).hexdigest()
    assert first.tokens == 5
    moved = ChunkInput(0, 2, np.array([5, 9]), {"think": texts(1, 1), "response": texts(1, 2)}, no_copies(2, 2))
    assert inputs_digest(moved) != inputs_digest(first)


def test_picked_rows_keep_their_numbers_and_texts() -> None:
    picked = chunk(1, 2, 3).take([8, 9])
    assert (picked.start, picked.stop, picked.rows.tolist(), picked.tokens) == (8, 10, [71, 72], 5)
    assert [ids.tolist() for ids in picked.token_ids["combined"]] == [[2, 3], [4, 5, 6]]
