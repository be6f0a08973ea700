"""Durable files step by step, with stand-ins for what a file system answers; CPUs, and files that appear late."""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.documents import FileSet
from embedkit.errors import EmbedkitError
from embedkit.job import JobContext
from embedkit.storage import (
    atomic,
    atomic_write,
    atomic_write_bytes,
    available_cpus,
    cpus,
    durable_rename,
    exclusive,
    fsync_file,
    fsync_folder,
    is_local,
    match_umask,
    mounts,
    names_file,
    new_private_folder,
    private_folder,
    read_into,
    remove_ended_locks,
    remove_temporaries,
    remove_trials,
    rename_over,
    sha256_file,
    single_threads,
    visibility,
    wait_for_files,
    write_once,
)
from embedkit.storage.mounts import Mount


def system_error(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


# Private folders and the umask


@pytest.mark.parametrize(("mode", "umask"), [(0o755, 0o022), (0o770, 0o007), (0o700, 0o077), (0o777, 0o000)])
def test_new_files_are_as_open_as_their_folder(mode: int, umask: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)
    before = os.umask(0)
    try:
        match_umask(tmp_path)
        assert os.umask(0) == umask
    finally:
        os.umask(before)


def test_a_private_folder_belongs_to_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    first, second = new_private_folder(folder), new_private_folder(folder)
    assert first != second
    assert {first.parent, second.parent} == {folder}
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    message = f"{folder} is not yours, so its files cannot be trusted; move it away, and resume"
    for use in (private_folder, new_private_folder):
        with pytest.raises(EmbedkitError) as error:
            use(folder)
        assert str(error.value) == message


def test_a_file_in_the_place_of_a_private_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another process removes at this moment is made again."""
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        private_folder(tmp_path / "file")
    real, calls = Path.mkdir, []

    def mkdir(path: Path, *arguments: object, **options: object) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise FileExistsError
        real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert private_folder(tmp_path / "new").is_dir()
    assert len(calls) == 2


# fsync and rename


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EROFS])
def test_an_error_of_fsync_names_the_file(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that refuses it (EINVAL) is accepted, and no descriptor stays open."""
    path = tmp_path / "x"
    path.touch()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(os, "fsync", system_error(number))
    for sync, named in ((fsync_file, path), (fsync_folder, tmp_path)):
        with pytest.raises(OSError, match=os.strerror(number)) as error:
            sync(named)
        assert (error.value.errno, error.value.filename) == (number, str(named))
    monkeypatch.setattr(os, "fsync", system_error(errno.EINVAL))
    fsync_folder(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        fsync_file(path)
    with pytest.raises(NotADirectoryError):
        fsync_folder(path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_file_is_durable_before_and_after_its_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, Path]] = []
    for name in ("fsync_file", "fsync_folder", "rename_over"):
        real = getattr(atomic, name)
        monkeypatch.setattr(
            atomic, name, lambda *paths, name=name, real=real: (steps.append((name, paths[0])), real(*paths))
        )
    (tmp_path / "t").write_bytes(b"data")
    durable_rename(tmp_path / "t", tmp_path / "x")
    assert steps == [("fsync_file", tmp_path / "t"), ("rename_over", tmp_path / "t"), ("fsync_folder", tmp_path)]
    assert (tmp_path / "x").read_bytes() == b"data"


@pytest.mark.parametrize("left", ["temporary", "nothing", "another file", "renamed"])
def test_a_rename_without_an_answer_counts_if_it_was_made(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, path = tmp_path / "t", tmp_path / "x"
    temporary.write_bytes(b"data")
    real = Path.replace

    def replace(one: Path, other: Path) -> None:
        if left == "another file":
            other.write_bytes(b"other")
        if left == "renamed":
            real(one, other)
        elif left != "temporary":
            one.unlink()
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(Path, "replace", replace)
    outcome = contextlib.nullcontext() if left == "renamed" else pytest.raises(OSError, match="lost")
    with outcome:
        rename_over(temporary, path)
    monkeypatch.setattr(Path, "replace", real)
    with pytest.raises(FileNotFoundError):
        rename_over(tmp_path / "gone", path)


def test_a_temporary_file_may_be_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with atomic_write(tmp_path / "x", tmp_path / "other") as temporary:
        assert temporary.parent == tmp_path / "other"
        temporary.write_bytes(b"1")
    with atomic_write(tmp_path / "y") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(f".y.{os.getpid()}-")
        assert temporary.name.endswith(".tmp")
        temporary.write_bytes(b"2")
    atomic_write_bytes(tmp_path / "x", b"3")
    assert ((tmp_path / "x").read_bytes(), (tmp_path / "y").read_bytes()) == (b"3", b"2")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["other", "x", "y"]


def test_an_error_while_writing_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as error, atomic_write(tmp_path / "x"):
        system_error(errno.ENOSPC)()
    assert error.value.filename == str(tmp_path / "x")
    with pytest.raises(OSError, match="quota") as error, names_file(Path("/x")):
        raise ValueError("polars: quota (os error 122)")
    assert (error.value.errno, error.value.filename) == (errno.EDQUOT, "/x")
    with pytest.raises(ValueError, match="no number"), names_file(Path("/x")):
        raise ValueError("no number")


def test_temporary_files_are_removed_by_name(tmp_path: Path) -> None:
    for name in (".a.1.tmp", ".b.1.tmp", "a.tmp", ".a.txt"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path, "a.*")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.txt", ".b.1.tmp", "a.tmp"]
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.txt", "a.tmp"]


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process removes every file right before this one does."""
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        with contextlib.suppress(FileNotFoundError):
            real(path)
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)


@pytest.mark.usefixtures("others")
def test_what_another_process_has_just_removed_is_no_error(tmp_path: Path) -> None:
    for name in (".a.1.tmp", ".x.try-1", ".run.lease.1.new.tmp"):
        (tmp_path / name).touch()
    remove_temporaries(tmp_path, "a.*")
    remove_trials(tmp_path, "x")
    remove_ended_locks(tmp_path, "run")
    atomic_write_bytes(tmp_path / "b", b"1")
    assert write_once(tmp_path / "c", b"2")
    with FileSet(1) as files:
        files.add(tmp_path / "d").write(b"3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]


def test_a_buffer_is_filled_from_short_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is asked to read on behind them; it may refuse, or not know how."""

    class Short:
        def __init__(self, data: bytes) -> None:
            self.left = data

        def readinto(self, buffer: memoryview) -> int:
            count = min(3, len(buffer), len(self.left))
            buffer[:count], self.left = self.left[:count], self.left[count:]
            return count

        def fileno(self) -> int:
            return 7

        def tell(self) -> int:
            return 8

    asked: list[tuple[int, ...]] = []

    def advise(*arguments: int) -> None:
        asked.append(arguments)
        raise OSError(errno.ESPIPE, "no")

    monkeypatch.setattr(os, "posix_fadvise", advise)
    file, buffer = Short(b"0123456789"), bytearray(8)
    assert read_into(file, memoryview(buffer)) == 8  # type: ignore[arg-type]
    assert buffer == b"01234567"
    assert asked == [(7, 8, 8, os.POSIX_FADV_WILLNEED)]
    assert read_into(file, memoryview(buffer)) == 2  # type: ignore[arg-type]
    assert read_into(file, memoryview(buffer)) == 0  # type: ignore[arg-type]
    assert len(asked) == 2
    monkeypatch.delattr(os, "posix_fadvise")
    monkeypatch.setattr(atomic, "BLOCK_BYTES", 7)
    (tmp_path / "x").write_bytes(b"0123456789" * 3)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(b"0123456789" * 3).hexdigest()


@given(data=st.binary(max_size=60), block=st.integers(1, 25), keep_cached=st.booleans())
def test_blocks_are_the_file_whether_or_not_kept(data: bytes, block: int, keep_cached: bool) -> None:
    """The position moves with each block, as the request to read on needs it."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(data)
        buffer, found = memoryview(bytearray(block)), b""
        with path.open("rb", buffering=0) as file:
            while count := read_into(file, buffer, keep_cached):
                found += buffer[:count]
                assert file.tell() == len(found)
        assert found == data
        assert sha256_file(path, keep_cached) == hashlib.sha256(data).hexdigest()


def test_systems_without_the_flag_keep_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system or file system refuses it, a sandbox refuses the call, a Python lacks the flag or the whole call."""

    def lacks(*_: object) -> int:
        raise NotImplementedError

    (tmp_path / "x").write_bytes(b"0123456789")
    for fail in (*map(system_error, (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)), lacks, None):
        if fail is None:
            monkeypatch.delattr(os, "preadv")
        else:
            monkeypatch.setattr(os, "preadv", fail)
        assert sha256_file(tmp_path / "x", keep_cached=False) == hashlib.sha256(b"0123456789").hexdigest()


def test_an_unreadable_file_is_an_error_either_way(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb", buffering=0) as file:
        for keep_cached in (True, False):
            with pytest.raises(OSError, match="not open for reading"):
                read_into(file, memoryview(bytearray(3)), keep_cached)


# Files of one writer


def test_what_another_error_of_a_link_says_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a link and a rename without replacing are refused, the file system is named."""
    path = tmp_path / "m"
    monkeypatch.setattr(os, "link", system_error(errno.EPERM))
    monkeypatch.setattr(exclusive, "_rename_without_replacing", system_error(errno.EINVAL))
    for mount, kind in ((Mount("/dev/x", "/x", "vfat"), "vfat at /x"), (Mount("", "", ""), "of an unknown type")):
        monkeypatch.setattr(exclusive, "mount_of", lambda _, mount=mount: mount)
        with pytest.raises(EmbedkitError) as error:
            write_once(path, b"1")
        assert str(error.value).startswith(
            f"{tmp_path}: its file system ({kind}) refuses hard links (Operation not permitted) and renaming without "
            "replacing (Invalid argument), and embedkit needs one of them to write m exactly once."
        )
    monkeypatch.setattr(exclusive, "_rename_without_replacing", system_error(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        write_once(path, b"1")
    assert list(tmp_path.iterdir()) == []


# CPUs


def test_cpus_are_those_of_the_job_or_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedkit.job._current", JobContext(cpus=3))
    assert available_cpus() == 3
    monkeypatch.setattr("embedkit.job._current", JobContext())
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {pid, 4, 7, 9})
    assert available_cpus() == 4
    monkeypatch.delattr(os, "sched_getaffinity")
    for count, wanted in ((5, 5), (None, 1)):
        monkeypatch.setattr(cpus.os, "cpu_count", lambda count=count: count)
        assert available_cpus() == wanted


def test_libraries_get_one_thread_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RAYON_NUM_THREADS", "FASTOKENS_BPE_THREADS", "POLARS_MAX_THREADS", "OMP_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    with pytest.raises(KeyError), single_threads():  # noqa: PT012
        assert [os.environ[name] for name in names] == ["1"] * 4
        raise KeyError
    assert [os.environ.get(name) for name in names] == [None, None, None, "9"]


# Mounts, and files that appear late


def test_mounts_of_other_systems_are_those_that_psutil_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Partition:
        device, mountpoint, fstype = "/dev/x", "/", "apfs"

    monkeypatch.setattr(mounts, "LINUX_MOUNTS", tmp_path / "gone")
    monkeypatch.setattr(mounts.psutil, "disk_partitions", lambda all: [Partition] if all else [])
    assert mounts.mount_of(tmp_path) == Mount("/dev/x", "/", "apfs")
    assert is_local(tmp_path)


@pytest.mark.parametrize(("kind", "local"), [("ext4", True), ("nfs4", False), ("lustre", False), ("", False)])
def test_a_local_file_system_is_of_one_host(kind: str, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "mount_of", lambda path: Mount("x", "/", kind))
    assert is_local(Path("/x")) == local


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A stand-in for time: its only entry is now, and sleeping adds the seconds as further entries."""
    times = [100.0]
    monkeypatch.setattr(visibility.time, "monotonic", lambda: times[0])

    def sleep(seconds: float) -> None:
        times[0] += seconds
        times.append(seconds)

    monkeypatch.setattr(visibility.time, "sleep", sleep)
    monkeypatch.setattr(visibility, "mount_of", lambda path: Mount("x", "/", "nfs4"))
    return times


def test_pauses_double_up_to_a_limit_and_end_in_time(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "late"
    assert wait_for_files([path], 50) == [path]
    assert clock[1:] == [1, 2, 4, 8, 16, 16, 3]
    assert caplog.messages == [
        f"waiting for {path}, 50 s at most: a file system of type nfs4 may show late what another host wrote",
        "waited 50 s: 1 still missing",
    ]
    assert wait_for_files([path], 0) == [path]
    assert len(caplog.messages) == 2


def test_a_wait_ends_when_the_last_file_is_there(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was there and is gone again is missing."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    third.touch()
    real = visibility._appears

    def appears(path: Path) -> bool:
        if clock[0] >= 103:
            first.touch()
        if clock[0] >= 107:
            second.touch()
        return real(path)

    monkeypatch.setattr(visibility, "_appears", appears)
    assert wait_for_files([first, second, third]) == []
    assert clock[1:] == [1, 2, 4]
    assert caplog.messages[0].startswith(f"waiting for {first} and 1 more, 90 s at most")
    assert caplog.messages[1] == "waited 7 s: all are there now"
    caplog.clear()
    assert wait_for_files([first, second, third]) == []
    assert caplog.messages == []


def test_the_nearest_folder_that_exists_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    real = os.listdir
    monkeypatch.setattr(visibility.os, "listdir", lambda path: (listed.append(path), real(path)))
    assert not visibility._appears(tmp_path / "a" / "b" / "x")
    assert listed == [tmp_path / "a" / "b", tmp_path / "a", tmp_path]
    (tmp_path / "x").touch()
    assert visibility._appears(tmp_path / "x")
