"""Many files at once: hashed as they are written, all there in the end or none."""

import hashlib
import resource
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from embedkit.documents.file_set import FileSet


@given(
    written=st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=50)), max_size=12),
    expected=st.sampled_from([4, 10**9]),
)
def test_files_are_what_was_written_and_so_are_their_digests(written: list[tuple[int, bytes]], expected: int) -> None:
    wanted = [b"", b"", b"", b""]
    with TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i % 2}", f"file {i}") for i in range(4)]
        with FileSet(expected) as files:
            sinks = [files.add(path) for path in paths]
            for i, data in written:
                assert sinks[i].write(data) == len(data)
                wanted[i] += data
                assert sinks[i].tell() == len(wanted[i])
            assert not any(path.exists() for path in paths)
            files.publish()
        assert [path.read_bytes() for path in paths] == wanted
        records = {record.name: record for record in files.records(Path(folder))}
        for path, data in zip(paths, wanted, strict=True):
            record = records[path.relative_to(folder).as_posix()]
            assert (record.bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert not list(Path(folder).rglob(".*"))


def test_unpublished_files_leave_the_old_ones_untouched(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"old")
    (tmp_path / ".old.12345678.tmp").write_bytes(b"a killed writer's")
    with FileSet(2) as files:
        files.add(old).write(b"new")
        files.add(tmp_path / "other").write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert old.read_bytes() == b"old"


def test_more_files_than_may_be_open_are_written(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        with FileSet(expected=300) as files:
            sinks = [files.add(tmp_path / f"{i}") for i in range(300)]
            for _ in range(2):
                for i, sink in enumerate(sinks):
                    sink.write(f"{i} ".encode())
            files.publish()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [(tmp_path / f"{i}").read_text() for i in range(300)] == [f"{i} {i} " for i in range(300)]
