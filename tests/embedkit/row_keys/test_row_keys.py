"""Row keys: by hand with hashlib, and lookups by any data."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.documents import open_matrix
from embedkit.model import TokenIds
from embedkit.row_keys import (
    Copies,
    Lookup,
    RowKeys,
    joined,
    keys_from_bytes,
    open_earlier,
    read_keys,
    text_keys,
    token_keys,
    vector_keys,
    write_lookups,
)
from embedkit.row_keys.copies import copies_from_bytes
from embedkit.row_keys.lookup import NOT_FOUND, _write_sorted
from embedkit.run import RunFolder
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
        _write_sorted(tmp_path / f"{name}.npy", table, lengths > 0)
    np.save(tmp_path / "known.npy", np.zeros((len(keys), 5), np.uint64))
    wanted = np.array([(a, b) for a in range(5) for b in range(5)], np.uint64)
    first: dict[tuple[int, int], int] = {}
    for i, (a, b, has_text) in enumerate(keys):
        if has_text:
            first.setdefault((a, b), i)
    for (a, b), found in zip(wanted.tolist(), Lookup(tmp_path).find_texts(wanted).tolist(), strict=True):
        is_hidden = any(one == a and other < b for one, other in first)
        assert found == (NOT_FOUND if is_hidden else first.get((a, b), NOT_FOUND))


def test_what_is_known_is_that_of_the_ids(tmp_path: Path) -> None:
    known = np.arange(15, dtype=np.uint64).reshape(3, 5)
    np.save(tmp_path / "known.npy", known)
    for name in ("texts", "tokens"):
        np.save(tmp_path / f"{name}.npy", np.empty((3, 0), np.uint64))
    tokens, lengths, vectors = Lookup(tmp_path).known(np.array([2, 0]))
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
        with pytest.raises(ValueError, match=r"of shape \(2, 1\b.*\), not \("):
            read(whole, rows, views)
    for cut in (b"", whole[:10], whole[:-1]):
        with pytest.raises(ValueError, match=r"no file of (keys|copies)"):
            read(cut, 2, 1)
    with pytest.raises(ValueError, match=r"no file of (keys|copies)"):
        read({keys_from_bytes: COPIES, copies_from_bytes: KEYS}[read].to_bytes(), 2, 1)


def test_copies_of_a_run_are_in_the_order_of_its_ids() -> None:
    """So that its matrix is read from front to back. Rows of other runs and views are left out."""
    runs = np.array([[0, 1], [1, -1], [0, 0], [0, -1]], np.int16)
    ids = np.array([[9, 5], [1, 0], [2, 3], [9, 0]])
    vectors = np.arange(16, dtype=np.uint64).reshape(4, 2, 2)
    found = Copies(runs, ids, vectors).of_run(0, 0)
    assert (found.rows.tolist(), found.ids.tolist()) == ([2, 0, 3], [2, 9, 9])
    assert found.vectors.tolist() == [[8, 9], [0, 1], [12, 13]]
    assert Copies(runs, ids, vectors).of_run(1, 1).rows.tolist() == [0]


def test_tables_of_one_view_are_made_from_all_parts(small_run: RunFolder, tmp_path: Path) -> None:
    """Every row with a text is found under its id, in each view, and nothing else is in the tables."""
    earlier = open_earlier(str(small_run.path))
    write_lookups(tmp_path, earlier, ["response", "combined"], has_texts=True)
    write_lookups(tmp_path / "other", earlier, ["combined"], has_texts=False)
    keys = joined(list(read_keys(small_run, earlier.plan, 2)), 2)
    for place, view in enumerate(earlier.views):
        lookup, has_text = Lookup(tmp_path / view), keys.lengths[:, place] > 0
        first: dict[tuple[int, ...], int] = {}
        for i in np.flatnonzero(has_text).tolist():
            first.setdefault(tuple(keys.tokens[i, place].tolist()), i)
        wanted = [first.get(tuple(key), NOT_FOUND) for key in keys.tokens[:, place].tolist()]
        assert lookup.find_tokens(keys.tokens[:, place]).tolist() == wanted
        assert (lookup.find_texts(keys.texts[has_text, place]) >= 0).all()
        matrix = open_matrix(small_run.view_matrix(view), earlier.success.rows, earlier.success.dim)
        tokens, lengths, vectors = lookup.known(np.arange(len(keys.lengths)))
        assert np.array_equal(tokens, keys.tokens[:, place])
        assert np.array_equal(lengths, keys.lengths[:, place])
        assert np.array_equal(vectors, vector_keys(np.array(matrix)))
    other = Lookup(tmp_path / "other" / "combined")
    assert (other.find_texts(keys.texts[:, 0]) == NOT_FOUND).all()
    assert (other.find_tokens(keys.tokens[keys.lengths[:, 0] > 0, 0]) >= 0).all()
