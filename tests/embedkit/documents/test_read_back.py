"""Digests of many files at once are those of one at a time, and those of pieces are of the pieces."""

import hashlib
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.documents import FileRecord, read_back
from embedkit.documents.read_back import ReadBack, ahead


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


def test_a_forgotten_file_is_known_by_its_digest_alone(tmp_path: Path) -> None:
    path, gone = tmp_path / "matrix", tmp_path / "gone"
    path.write_bytes(b"abcdefgh")
    with ReadBack() as read_back:
        read_back.submit_matrix(path, 4, [0, 4, 8], hash_rows=True)
        read_back.submit_matrix(gone, 4, [0, 4, 8])
        assert len(read_back.pieces(path)) == len(read_back.row_hashes(path)) == 2
        for one in (path, gone, tmp_path / "never submitted"):
            read_back.forget(one)
        path.write_bytes(b"another")  # it is not read again
        read_back.submit([path])
        assert read_back.sha256(path) == hashlib.sha256(b"abcdefgh").hexdigest()
        assert (read_back.pieces(path), len(read_back.row_hashes(path)), read_back.norms(path)) == ((), 0, ())
        with pytest.raises(FileNotFoundError, match="gone"):
            read_back.sha256(gone)


def test_what_is_needed_soon_is_read_first_then_the_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread reads the first file when the others are requested; equal ones are read in the order of requests."""
    monkeypatch.setattr(read_back, "available_cpus", lambda: 0)  # there is one thread more
    begun, all_requested, order = Event(), Event(), list[str]()

    def watch(path: Path, *arguments: object, **named: object) -> str:
        begun.set()
        assert all_requested.wait(60)
        order.append(path.name)
        return real(path, *arguments, **named)  # type: ignore[arg-type]

    real = read_back.sha256_file
    monkeypatch.setattr(read_back, "sha256_file", watch)
    for name, size in {"first": 1, "short": 1, "long": 90, "as long": 90, "table": 8, "part": 1, "keys": 5}.items():
        (tmp_path / name).write_bytes(bytes(size))
    changed = FileRecord(name="table", bytes=9, sha256="0" * 64)  # so its bytes are hashed at once
    with ReadBack() as reader:
        reader.submit([tmp_path / "first"])
        assert begun.wait(60)
        reader.submit([tmp_path / "short", tmp_path / "long", tmp_path / "as long"])
        reader.submit_table(tmp_path / "table", changed, [], [], soon=False)
        reader.submit_table(tmp_path / "part", changed, [], [])
        reader.submit([tmp_path / "keys"], soon=True)
        all_requested.set()
        assert reader.sha256(tmp_path / "short") == hashlib.sha256(bytes(1)).hexdigest()
    assert order == ["first", "part", "keys", "table", "long", "as long", "short"]


@pytest.mark.parametrize(("cpus", "count"), [(1, 2), (3, 6), (100, 16)])
def test_a_few_items_are_started_before_they_are_used(cpus: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones at once, each other one when an item is used; never more than there are."""
    monkeypatch.setattr(read_back, "available_cpus", lambda: cpus)
    started: list[int] = []
    items = ahead(range(20), started.append)
    assert started == list(range(count))
    for number, item in enumerate(items):
        assert item == number
        assert started == list(range(min(count + number + 1, 20)))
    assert list(ahead([], started.append)) == []
