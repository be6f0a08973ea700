"""Digests of many files at once are those of one at a time, and a matrix beside its pieces shows where they differ."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit import readback
from embedkit.readback import Piece, ReadBack


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "BLOCK_BYTES", 7)


@given(pieces=st.lists(st.binary(max_size=40), max_size=5), head=st.binary(max_size=9), tail=st.binary(max_size=20))
def test_digests_are_those_of_the_files(pieces: list[bytes], head: bytes, tail: bytes) -> None:
    with TemporaryDirectory() as folder, ReadBack() as read_back:
        whole = Path(folder, "whole")
        whole.write_bytes(head + b"".join(pieces) + tail)
        of_pieces = [Piece(Path(folder, f"piece {i}"), 3) for i in range(len(pieces))]
        for piece, data in zip(of_pieces, pieces, strict=True):
            piece.path.write_bytes(b"own" + data)
        alone = Path(folder, "alone")
        alone.write_bytes(tail)
        read_back.ask_side_by_side(whole, len(head), of_pieces)
        read_back.ask([alone, whole, Path(folder, "gone")])
        for path in (whole, alone, *(piece.path for piece in of_pieces)):
            assert read_back.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
        assert [read_back.difference(piece.path) for piece in of_pieces] == [None] * len(pieces)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4), data=st.data())
def test_the_first_byte_that_differs_is_found(sizes: list[int], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(sizes) - 1))
    at = data.draw(st.integers(0, sizes[which] - 1))
    pieces = [bytes([i]) * size for i, size in enumerate(sizes)]
    with TemporaryDirectory() as folder, ReadBack() as read_back:
        whole = Path(folder, "whole")
        whole.write_bytes(b"".join(pieces))
        paths = [Path(folder, f"piece {i}") for i in range(len(sizes))]
        for i, (path, piece) in enumerate(zip(paths, pieces, strict=True)):
            path.write_bytes(piece if i != which else piece[:at] + b"\xff" * (len(piece) - at))
        read_back.ask_side_by_side(whole, 0, [Piece(path, 0) for path in paths])
        assert [read_back.difference(path) for path in paths] == [at if i == which else None for i in range(len(sizes))]


def test_a_whole_that_ends_early_differs_where_it_ends(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"abc" * 3)
    (tmp_path / "piece").write_bytes(b"abc" * 5)
    with ReadBack() as read_back:
        read_back.ask_side_by_side(tmp_path / "whole", 0, [Piece(tmp_path / "piece", 0)])
        assert read_back.difference(tmp_path / "piece") == 9
