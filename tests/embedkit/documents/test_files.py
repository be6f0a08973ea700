"""Matrices, tables and files that are hashed while they are written or read."""

import errno
import hashlib
import os
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.documents import ZERO_NORM, FileRecord, file_set, read_back
from embedkit.documents.checked_file import read_checked
from embedkit.documents.codec import file_record
from embedkit.documents.file_set import FileSet, HashedFile, atomic_write_hashed
from embedkit.documents.matrix import open_matrix
from embedkit.documents.matrix_file import check_matrix, matrix_header, row_norms
from embedkit.documents.read_back import ReadBack, StreamDigests, Table, digests_in_pieces
from embedkit.documents.table_rows import hash_pieces, read_row, read_table_rows
from embedkit.errors import DiskDiffers, EmbedkitError


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# Matrices


def test_a_matrix_begins_with_a_padded_safetensors_header() -> None:
    header = matrix_header(12, 34)
    text = b'{"embeddings":{"dtype":"F32","shape":[12,34],"data_offsets":[0,1632]}}'
    assert header[:8] == (72).to_bytes(8, "little")
    assert header[8:] == text + b"  "
    assert {len(matrix_header(rows, 3)) % 8 for rows in (1, 10, 100, 1000, 10_000)} == {0}


def test_a_matrix_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    header = matrix_header(2, 3)
    path.write_bytes(header + values.tobytes())
    assert check_matrix(path, 2, 3) == len(header)
    assert np.asarray(open_matrix(path, 2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    for data in (header + bytes(23), header + bytes(25), matrix_header(3, 2) + bytes(24), header[:-1]):
        path.write_bytes(data)
        with pytest.raises(EmbedkitError) as error:
            open_matrix(path, 2, 3)
        assert str(error.value) == f"{path}: not a whole matrix of 2 x 3 float32 ({len(data)} bytes)"


def test_norms_are_of_whole_rows_with_any_value() -> None:
    rows = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1]], "<f4")
    norms = row_norms(memoryview(rows.tobytes() + b"rest"), 8)
    assert norms.dtype == np.float32
    assert np.array_equal(norms, np.array([5, 0, np.nan, np.inf], np.float32), equal_nan=True)


# A file that is read once


def test_the_bytes_that_were_compared_are_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    data = bytes(range(200))
    path.write_bytes(data)
    record = file_record(path)
    assert read_checked(path, record) == data
    monkeypatch.setattr("embedkit.documents.checked_file.BLOCK_BYTES", 7)
    assert read_checked(path, record) == data
    for wrong, message in (
        (data[:-1] + b"x", "its bytes are not those that were written (sha256 differs)"),
        (data + b"x", "has 201 bytes, its manifest says 200"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(EmbedkitError) as error:
            read_checked(path, record)
        assert str(error.value) == f"{path}: {message}"


def test_a_file_that_ends_early_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had its size when it was compared with the record. The sha256 of the zeros after it does not matter."""
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    record = FileRecord(name="data", bytes=5, sha256=sha256(b"abc"))
    monkeypatch.setattr("embedkit.documents.checked_file.size_problem", lambda *_: None)
    with pytest.raises(EmbedkitError) as error:
        read_checked(path, record)
    assert str(error.value) == f"{path}: shrank while it was read"


# Files that are hashed while they are written


@pytest.mark.parametrize("keep_open", [True, False])
def test_a_hashed_file_has_its_size_digest_and_position(tmp_path: Path, keep_open: bool) -> None:
    file = HashedFile(tmp_path / "x", keep_open)
    assert file.temporary.parent == tmp_path
    assert file.temporary.name.startswith(".x.")
    assert file.temporary.name.endswith(".tmp")
    assert file.closed is False
    assert file.write(b"abc") == 3
    assert file.write(memoryview(np.arange(2, dtype="<i4")).cast("B")) == 8
    file.flush()
    data = b"abc" + np.arange(2, dtype="<i4").tobytes()
    assert (file.tell(), file.bytes, file.sha256) == (11, 11, sha256(data))
    assert file.record == FileRecord(name="x", bytes=11, sha256=sha256(data))
    file.close()
    file.close()
    assert file.write(b"") == 0
    assert file.temporary.read_bytes() == data
    assert (file._file is not None) == keep_open
    file.close()


def test_a_temporary_name_is_used_once(tmp_path: Path) -> None:
    (tmp_path / ".x.tmp").write_bytes(b"another writer's")
    with pytest.raises(FileExistsError):
        HashedFile(tmp_path / "x", keep_open=True, temporary=tmp_path / ".x.tmp")


def test_short_writes_are_continued_and_errors_name_the_file(tmp_path: Path) -> None:
    file = HashedFile(tmp_path / "x", keep_open=True)

    class Short:
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: memoryview) -> int:
            if len(self.data) > 9:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.data += bytes(data[:4])
            return len(data[:4])

        def close(self) -> None: ...

    short = Short()
    file.close()
    file._file = short  # type: ignore[assignment]
    assert file.write(b"0123456789") == 10
    assert short.data == b"0123456789"
    with pytest.raises(OSError, match=r"No space left on device: '.*/x'"):
        file.write(b"more")
    assert file.bytes == 10


def test_a_file_is_read_back_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a disk that gives back other bytes, or fewer."""
    path = tmp_path / "data"
    with atomic_write_hashed(path) as file:
        file.write(b"right")
        assert not path.exists()
    assert path.read_bytes() == b"right"
    assert file.record == file_record(path)
    real = file_set.fsync_file
    for wrong in (b"wrong", b"righ"):
        monkeypatch.setattr(file_set, "fsync_file", lambda one, data=wrong: (one.write_bytes(data), real(one)))
        with pytest.raises(DiskDiffers) as error:
            with atomic_write_hashed(path) as file:
                file.write(b"right")
        assert str(error.value).startswith(f"{path}: the disk does not give back the bytes")
        assert path.read_bytes() == b"right"
    assert [one.name for one in tmp_path.iterdir()] == ["data"]


def test_a_failing_block_closes_and_removes_its_file(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    with pytest.raises(KeyError):  # noqa: PT012
        with atomic_write_hashed(tmp_path / "x", tmp_path / "parts") as file:
            assert file.temporary.parent == tmp_path / "parts"
            raise KeyError
    assert file._file is None
    assert [path.name for path in tmp_path.rglob("*")] == ["parts"]


# Sets of files


@pytest.fixture
def few_files() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("few_files")
@pytest.mark.parametrize(("expected", "stays_open"), [(19, True), (20, False)])
def test_files_stay_open_while_there_are_descriptors_to_spare(tmp_path: Path, expected: int, stays_open: bool) -> None:
    with FileSet(expected) as files:
        file = files.add(tmp_path / "x")
        file.write(b"a")
        assert (file._file is not None) == stays_open


def test_published_files_are_durable_before_they_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files, then all names, then all folders; and at most sixteen at once."""
    steps: list[tuple[str, Path]] = []
    at_once, most = 0, 0
    guard = threading.Lock()

    def record(step: str) -> object:
        def call(path: Path, *_: Path) -> None:
            nonlocal at_once, most
            with guard:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.001)
            with guard:
                at_once -= 1
                steps.append((step, path))

        return call

    real_rename = file_set.rename_over
    monkeypatch.setattr(file_set, "fsync_file", record("file"))
    monkeypatch.setattr(file_set, "fsync_folder", record("folder"))
    monkeypatch.setattr(file_set, "rename_over", lambda one, two: (record("name")(one), real_rename(one, two)))  # type: ignore[operator]
    with FileSet(3) as files:
        written = [files.add(tmp_path / f"{i % 2}" / f"{i}") for i in range(40)]
        for file in written:
            file.write(b"x")
        files.publish()
        assert all(file._file is None for file in written)
    temporaries = {file.temporary for file in written}
    assert [step for step, _ in steps] == ["file"] * 40 + ["name"] * 40 + ["folder"] * 2
    assert {path for step, path in steps if step == "file"} == temporaries
    assert sorted(path for step, path in steps if step == "folder") == [tmp_path / "0", tmp_path / "1"]
    assert 1 < most <= 16


@pytest.mark.parametrize("step", ["fsync_file", "rename_over", "fsync_folder"])
def test_an_error_of_any_step_is_raised(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(file_set, step, fail)
    with pytest.raises(OSError, match="Input/output error"):  # noqa: PT012
        with FileSet(2) as files:
            files.add(tmp_path / "a").write(b"x")
            files.add(tmp_path / "b").write(b"x")
            files.publish()
    assert (tmp_path / "a").exists() == (step == "fsync_folder")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# Reading back


def table_of(path: Path, rows: int = 5) -> FileRecord:
    pl.DataFrame({"id": range(rows), "text": ["a", "b", "c", "d", "e"][:rows]}).write_parquet(path, row_group_size=2)
    return file_record(path)


def test_a_table_is_decoded_only_if_it_is_as_recorded(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    record = table_of(path)
    damaged, cut = tmp_path / "damaged.parquet", tmp_path / "cut.parquet"
    damaged.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:])
    cut.write_bytes(path.read_bytes()[:-1])
    undecodable = tmp_path / "bad.parquet"
    undecodable.write_bytes(b"PAR1 no table")
    with ReadBack() as reader:
        for one in (path, damaged, cut, tmp_path / "gone.parquet"):
            reader.submit_table(one, record, ["text"], ["id"])
        reader.submit_table(undecodable, file_record(undecodable), ["text"], ["id"])
        table = reader.table(path)
        assert table.rows is not None
        assert (table.whole, table.problem) == (record.sha256, "")
        assert table.rows.kept["id"].to_pylist() == [0, 1, 2, 3, 4]
        assert len(table.rows.hashes) == 5
        assert reader.table(damaged) == Table(sha256(damaged.read_bytes()))
        assert reader.table(cut) == Table(sha256(cut.read_bytes()))
        assert reader.table(tmp_path / "gone.parquet") == Table("")
        assert reader.table(tmp_path / "other.parquet") == Table("")
        bad = reader.table(undecodable)
        assert bad.rows is None
        assert bad.problem.startswith("cannot be decoded: ")
        assert reader.sha256(undecodable) == bad.whole == sha256(b"PAR1 no table")
        assert reader.sha256(damaged) == sha256(damaged.read_bytes())


def test_a_table_too_large_for_memory_is_hashed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    record = table_of(path)
    opened: list[bool] = []
    real = read_back.read_table_rows

    def watch(source: object, *arguments: object) -> object:
        opened.append(isinstance(source, Path))
        return real(source, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(read_back, "read_table_rows", watch)
    for most, is_path in ((record.bytes, False), (record.bytes - 1, True)):
        monkeypatch.setattr(read_back, "IN_MEMORY_BYTES", most)
        with ReadBack() as reader:
            reader.submit_table(path, record, ["text"], ["id"])
            assert reader.table(path).rows is not None
            assert reader.sha256(path) == record.sha256
        assert opened.pop() == is_path
    path.write_bytes(path.read_bytes()[:-5] + b"xxxxx")
    with ReadBack() as reader:
        reader.submit_table(path, record, ["text"], ["id"])
        assert reader.table(path) == Table(sha256(path.read_bytes()))
    assert opened == []


def test_rows_are_hashed_and_measured_where_requested(tmp_path: Path) -> None:
    path = tmp_path / "m"
    rows = np.array([[3, 4], [0, 2], [3, 4]], "<f4")
    path.write_bytes(b"header__" + rows.tobytes())
    with ReadBack() as reader:
        reader.submit_matrix(path, 8, [8, 16, 32], hash_rows=True)
        reader.submit([path])
        assert reader.sha256(path) == sha256(path.read_bytes())
        assert reader.pieces(path) == (sha256(rows[:1].tobytes()), sha256(rows[1:].tobytes()))
        assert reader.norms(path) == ((5, 5), (2, 5))
        hashes = reader.row_hashes(path)
        assert hashes[0] == hashes[2] != hashes[1]
        assert len(hashes) == 3
    with ReadBack() as reader:
        reader.submit_matrix(path, 8, [8])
        assert (reader.pieces(path), len(reader.row_hashes(path)), reader.norms(path)) == ((), 0, ())
        other = tmp_path / "other"
        assert (reader.pieces(other), len(reader.row_hashes(other)), reader.norms(other)) == ((), 0, ())


@given(
    vectors=st.lists(st.tuples(*[st.sampled_from([0, 3, -4, 1e-20, 1e30, np.nan])] * 2), max_size=12),
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    block=st.integers(1, 40),
)
def test_each_piece_has_the_range_of_its_norms(
    vectors: list[tuple[float, float]], counts: list[int], block: int
) -> None:
    """Zero vectors, those without a number, and rows behind the last piece are left out."""
    rows, borders = np.array(vectors, "<f4").reshape(-1, 2), [3, *(3 + 8 * stop for stop in accumulate(counts))]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_back, "BLOCK_BYTES", block)
        path = Path(folder, "m")
        path.write_bytes(b"abc" + rows.tobytes())
        found = digests_in_pieces(path, borders, row_bytes=8).norms
    with np.errstate(over="ignore"):
        norms = np.sqrt(rows[:, 0] * rows[:, 0] + rows[:, 1] * rows[:, 1])
    of_pieces = [norms[first:stop] for first, stop in pairwise([0, *accumulate(counts)])]
    kept = [piece[piece > ZERO_NORM] for piece in of_pieces]
    wanted = tuple((float(piece.min()), float(piece.max())) if len(piece) else None for piece in kept)
    assert found == (wanted if len(rows) else ())


def test_norms_are_measured_of_whole_numbers_only(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(bytes(range(12)))
    assert len(digests_in_pieces(path, [0, 12], row_bytes=3).norms) == 0
    assert len(digests_in_pieces(path, [0, 12], row_bytes=6).norms) == 0
    assert len(digests_in_pieces(path, [0, 12], row_bytes=4).norms) == 1


def test_each_block_that_was_read_is_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_back, "BLOCK_BYTES", 8)
    path = tmp_path / "m"
    path.write_bytes(bytes(2 + 24))
    blocks: list[int] = []
    digests_in_pieces(path, [2, 26], progress=lambda: blocks.append(1))
    assert len(blocks) == 3
    blocks.clear()
    digests_in_pieces(path, [2, 26], row_bytes=6, progress=lambda: blocks.append(1))  # blocks of whole rows
    assert len(blocks) == 4
    blocks.clear()
    digests_in_pieces(path, [2, 26], row_bytes=12, progress=lambda: blocks.append(1))  # of one row at least
    assert len(blocks) == 2


@pytest.mark.parametrize("step", [1, 3, 4, 9, 20])
@pytest.mark.parametrize("beside", [False, True])
def test_pieces_of_a_stream_do_not_depend_on_its_steps(step: int, beside: bool) -> None:
    data = bytes(range(20))
    borders = [3, 7, 7, 12, 18]
    stream = StreamDigests(borders)
    with ThreadPoolExecutor(1) as pool:
        for at in range(0, 20, step):
            stream.update(memoryview(data[at : at + step]), pool if beside else None)
    result = stream.result()
    assert result.whole == sha256(data)
    assert result.pieces == tuple(sha256(data[a:b]) for a, b in pairwise(borders))


def test_a_stream_that_ended_early_has_its_pieces_so_far() -> None:
    stream = StreamDigests([0, 4, 8])
    stream.update(memoryview(b"abcdef"))
    assert stream.result().pieces == (sha256(b"abcd"), sha256(b"ef"))


# Rows of tables


def test_hashes_of_rows_depend_on_the_columns_and_their_order(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": ["x", "y", "x"], "b": ["y", "x", "y"]}).write_parquet(path, row_group_size=2)
    both = read_table_rows(path, ["a", "b"], ["b"])
    assert both.hashes[0] == both.hashes[2] != both.hashes[1]
    assert both.hashes.dtype == np.uint64
    assert both.kept.column_names == ["b"]
    assert both.kept["b"].to_pylist() == ["y", "x", "y"]
    assert both.schema.names == ["a", "b"]
    swapped = read_table_rows(path, ["b", "a"], [])
    assert not (swapped.hashes == both.hashes).any()
    known = read_table_rows(path, ["a", "gone"], ["gone", "a"])
    assert known.hashes.tolist() == read_table_rows(path, ["a"], []).hashes.tolist()
    assert known.kept.column_names == ["a"]
    from_memory = read_table_rows(pa.py_buffer(path.read_bytes()), ["a", "b"], ["b"])
    assert from_memory.hashes.tolist() == both.hashes.tolist()


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": []}, schema={"a": pl.Int64}).write_parquet(path)
    rows = read_table_rows(path, ["a"], ["a"])
    assert (len(rows.hashes), rows.kept.num_rows, rows.schema.names) == (0, 0, ["a"])


def test_text_is_hashed_though_it_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    bad = pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(np.array([0, 1])), pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"a": bad}), path)
    assert len(read_table_rows(path, ["a"], []).hashes) == 1


def test_pieces_of_equal_size_are_hashed_one_by_one() -> None:
    hashes = hash_pieces(memoryview(b"abcabdabcxx"), 3)
    assert len(hashes) == 3
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_row_is_found_in_its_row_group(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table_of(path)
    assert [read_row(path, at, ["text", "gone"]) for at in range(6)] == [
        *({"text": letter} for letter in "abcde"),
        {},
    ]


def test_the_systems_copy_of_a_file_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system refuses it, or has no such call."""
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    calls: list[tuple[int, ...]] = []

    def advise(fd: int, *arguments: int) -> None:
        assert os.fstat(fd).st_ino == path.stat().st_ino
        calls.append(arguments)
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "posix_fadvise", advise)
    read_back.drop_cached(path)
    assert calls == [(0, 0, os.POSIX_FADV_DONTNEED)]
    monkeypatch.delattr(os, "posix_fadvise")
    read_back.drop_cached(path)
