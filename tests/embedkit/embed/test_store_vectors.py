"""A chunk's vectors are rounded to the stored type, or the row is named whose numbers the type cannot hold."""

import hashlib

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.documents.schema import Dtype
from embedkit.embed.checks import check_vectors, differing_rows
from embedkit.embed.store_vectors import decode_vectors, store_vectors
from embedkit.errors import EmbedkitError
from tests.embedkit.embed.test_checks import chunk

Floats = npt.NDArray[np.float32]


def stored(vectors: list[list[float]], store: Dtype) -> dict[str, Floats]:
    """What is read of the vectors of rows 70, 71, ..., once they are stored."""
    one = {"combined": np.array(vectors, np.float32)}
    return decode_vectors(store_vectors(chunk(*[1] * len(vectors)), one, store), store)


@pytest.mark.parametrize(("store", "bits"), [("float32", "<f4"), ("float16", "<f2"), ("bfloat16", "<u2")])
def test_digests_and_norms_are_those_of_what_is_stored(store: Dtype, bits: str) -> None:
    """(3.01, 4) is (3.015625, 4) in bfloat16, whose length is 5.009...; the digest is that of its bytes."""
    vectors = {"combined": np.array([[3.01, 4]], np.float32)}
    found = store_vectors(chunk(2), vectors, store)
    facts = check_vectors(chunk(2), found, store)["combined"]
    raw = {"float32": "d7a3404000008040", "float16": "05420044", "bfloat16": "41408040"}[store]
    assert found["combined"].dtype == np.dtype(bits)
    assert found["combined"].tobytes().hex() == raw
    assert facts.sha256 == hashlib.sha256(bytes.fromhex(raw)).hexdigest()
    length = {"float32": (3.01**2 + 16) ** 0.5, "float16": (3.009765625**2 + 16) ** 0.5, "bfloat16": 25.09399414**0.5}
    assert facts.norm_min == facts.norm_max == pytest.approx(length[store], rel=1e-7)


@pytest.mark.parametrize(
    ("vector", "largest"),
    [([0.5, 65520.0], "65520"), ([-1e6, 0.0], "1e\\+06"), ([3e-8, -2.9e-8], "3e-08"), ([1e-6, 4e-7], "1e-06")],
)
def test_a_row_that_float16_cannot_hold_is_named(vector: list[float], largest: str) -> None:
    """Too large numbers, and vectors that would be zeros or lose digits, each in the second row."""
    bounds = "float16 holds numbers from 6.10352e-05 to 65504"
    message = f"row 71: the largest number of its vector is {largest}, and {bounds} .view combined, 1 such rows"
    with pytest.raises(EmbedkitError, match=f"{message}.*Start a new run with --store float32"):
        stored([[1, 0], vector], "float16")
    assert stored([[1, 0], vector], "bfloat16")["combined"].all(axis=1).tolist()[0] is False


def test_vectors_just_inside_the_ends_of_float16_are_stored() -> None:
    """65519 rounds to 65504; a number that is far smaller than the others of its vector may lose digits."""
    found = stored([[65519, 1], [0.7, 1e-7], [2**-14, 0]], "float16")["combined"]
    assert found.tolist() == [[65504, 1], [0.7001953125, pytest.approx(1e-7, rel=0.2)], [2**-14, 0]]


def test_bfloat16_cannot_hold_only_the_ends_of_float32() -> None:
    with pytest.raises(EmbedkitError, match=r"row 70: the largest number of its vector is 3.40282e\+38"):
        stored([[3.4028234e38, 0]], "bfloat16")
    with pytest.raises(EmbedkitError, match=r"row 70: the largest number of its vector is 9\.99967e-42"):
        stored([[1e-41, 0]], "bfloat16")
    assert stored([[1e38, 1e-30]], "bfloat16")["combined"].shape == (1, 2)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000])
@pytest.mark.parametrize("store", ["float16", "bfloat16"])
def test_nan_of_an_engine_is_not_rounded_away(store: Dtype, bits: int) -> None:
    """Whatever its bits: rounding those of some NaN as numbers would give zero."""
    bad = np.array([0x3F800000, bits], np.uint32).view(np.float32)
    found = store_vectors(chunk(1), {"combined": bad[None]}, store)
    with pytest.raises(EmbedkitError, match="row 70: NaN or infinity in its vector"):
        check_vectors(chunk(1), found, store)


def test_a_row_without_a_text_stays_zeros() -> None:
    found = store_vectors(chunk(0), {"combined": np.zeros((1, 3), np.float32)}, "bfloat16")
    assert check_vectors(chunk(0), found, "bfloat16")["combined"].empty == 1


def test_a_row_embedded_again_is_rounded_as_the_stored_one() -> None:
    """(1 + 2^-8, 1) is (1, 1) in bfloat16: its cosine with (2, 1) is 3 / sqrt(10), and not 0.9493."""
    new = np.array([[1 + 2**-8, 1]], np.float32)
    (found,) = differing_rows(chunk(1), {"combined": new}, {"combined": np.array([[2, 1]])}, "bfloat16", "bfloat16")
    assert found == ("combined", 0, pytest.approx(1 - 3 / 10**0.5, rel=1e-6))
    (found,) = differing_rows(chunk(1), {"combined": new}, {"combined": np.array([[2, 1]])}, "bfloat16", "float32")
    assert found == ("combined", 0, pytest.approx(1 - 0.949294, rel=1e-3))
