"""Digests of many files at once are those of one at a time, and those of pieces are of the pieces."""

import hashlib
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.documents import read_back
from embedkit.documents.read_back import ReadBack


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_back, "BLOCK_BYTES", 7)


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6), data=st.binary(max_size=150))
def test_digests_are_those_of_the_file_and_its_pieces(sizes: list[int], data: bytes) -> None:
    borders = list(accumulate(sizes))
    with TemporaryDirectory() as folder, ReadBack() as read_back:
        matrix, alone = Path(folder, "matrix"), Path(folder, "alone")
        matrix.write_bytes(data)
        alone.write_bytes(data[:3])
        read_back.submit_matrix(matrix, 3, borders)
        read_back.submit([alone, matrix, Path(folder, "gone")])
        for path in (matrix, alone):
            assert read_back.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
        wanted = tuple(hashlib.sha256(data[first:last]).hexdigest() for first, last in pairwise(borders))
        assert read_back.pieces(matrix) == wanted
        assert read_back.pieces(alone) == ()


def test_a_file_not_submitted_is_read_on_demand(tmp_path: Path) -> None:
    (tmp_path / "late").write_bytes(b"abc")
    with ReadBack() as read_back:
        assert read_back.sha256(tmp_path / "late") == hashlib.sha256(b"abc").hexdigest()
