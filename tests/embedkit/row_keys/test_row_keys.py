"""Row keys: by hand with hashlib, and lookups by any data."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.model import TokenIds
from embedkit.row_keys import Copies, Lookup, RowKeys, keys_from_bytes, text_keys, token_keys, vector_keys
from embedkit.row_keys.copies import copies_from_bytes
from embedkit.row_keys.lookup import NOT_FOUND, _sorted
from tests.support.fuzzing import tries


def key(kind: bytes, data: bytes) -> list[int]:
    """The first 16 bytes of the SHA-256 of kind and data, as two little-endian numbers."""
    digest = hashlib.sha256(kind + b"\0" + data).digest()
    return [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")]


def test_keys_are_the_beginning_of_a_sha256() -> None:
    assert text_keys(["π", ""]).tolist() == [key(b"text", "π".encode()), key(b"text", b"")]
    token_ids = TokenIds(np.array([1, 258, 3], np.uint32), np.array([0, 2, 2, 3]))
    wanted = [key(b"tokens", b"\1\0\0\0\2\1\0\0"), [0, 0], key(b"tokens", b"\3\0\0\0")]
    assert token_keys(token_ids).tolist() == wanted
    vectors = np.array([[1.0, -2.0]], np.float32)
    assert vector_keys(vectors).tolist() == [key(b"vector", b"\0\0\x80\x3f\0\0\0\xc0")]
    assert text_keys([]).shape == token_keys(TokenIds(np.empty(0, np.uint32), np.zeros(1, np.int64))).shape == (0, 2)


numbers = st.integers(0, 2**64 - 1)


@given(keys=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=30))
@tries(100)
def test_a_lookup_finds_the_first_row_or_nothing(keys: list[tuple[int, int, bool]], tmp_path: Path) -> None:
    """Keys that share their first number may hide each other; a row that is found always has the key."""
    table = np.array([pair[:2] for pair in keys], np.uint64).reshape(-1, 2)
    lengths = np.array([has_text for *_, has_text in keys], np.int32)
    for name in ("texts", "tokens"):
        np.save(tmp_path / f"{name}.npy", _sorted(table, lengths))
    np.save(tmp_path / "facts.npy", np.zeros((len(keys), 5), np.uint64))
    wanted = np.array([(a, b) for a in range(5) for b in range(5)], np.uint64)
    first: dict[tuple[int, int], int] = {}
    for i, (a, b, has_text) in enumerate(keys):
        if has_text:
            first.setdefault((a, b), i)
    for (a, b), found in zip(wanted.tolist(), Lookup(tmp_path).find_texts(wanted).tolist(), strict=True):
        is_hidden = any(one == a and other < b for one, other in first)
        assert found == (NOT_FOUND if is_hidden else first.get((a, b), NOT_FOUND))


def test_facts_are_those_of_the_ids(tmp_path: Path) -> None:
    facts = np.arange(15, dtype=np.uint64).reshape(3, 5)
    np.save(tmp_path / "facts.npy", facts)
    for name in ("texts", "tokens"):
        np.save(tmp_path / f"{name}.npy", np.empty((3, 0), np.uint64))
    tokens, lengths, vectors = Lookup(tmp_path).facts(np.array([2, 0]))
    assert (tokens.tolist(), lengths.tolist(), vectors.tolist()) == ([[10, 11], [0, 1]], [12, 2], [[13, 14], [3, 4]])
    assert Lookup(tmp_path).find_tokens(tokens).tolist() == [NOT_FOUND, NOT_FOUND]


KEYS = RowKeys(np.ones((2, 1, 2), np.uint64), np.ones((2, 1, 2), np.uint64), np.array([[3], [0]], np.int32))
COPIES = Copies(np.array([[0], [-1]], np.int16), np.array([[7], [0]]), np.ones((2, 1, 2), np.uint64))


@pytest.mark.parametrize(
    ("read", "whole"),
    [(keys_from_bytes, KEYS.to_bytes()), (copies_from_bytes, COPIES.to_bytes())],
    ids=["keys", "copies"],
)
def test_files_of_other_rows_or_bytes_are_refused(read: Any, whole: bytes) -> None:
    assert read(whole, 2, 1).to_bytes() == whole
    for rows, views in ((1, 1), (2, 2), (0, 1)):
        with pytest.raises(ValueError, match=r"of shape \(2, 1\), not"):
            read(whole, rows, views)
    for cut in (b"", whole[:10], whole[:-1]):
        with pytest.raises(ValueError, match=r"no file of (keys|copies)"):
            read(cut, 2, 1)
    with pytest.raises(ValueError, match=r"no file of (keys|copies)"):
        read({keys_from_bytes: COPIES, copies_from_bytes: KEYS}[read].to_bytes(), 2, 1)
