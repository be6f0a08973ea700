"""Waiting for files of another host: where, how long, with how many listings, and with a word."""

import errno
import logging
import os
import threading
from pathlib import Path

import pytest

from embedkit.storage import atomic_write_bytes, visibility
from embedkit.storage.mounts import Mount
from embedkit.storage.visibility import VISIBILITY_DELAY_SECONDS, visibility_delay, wait_for_files
from tests.support.late_files import show_late


def mounted(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "mount_of", lambda path: Mount("server:/x", "/x", kind))


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        *((kind, 0) for kind in ("ext4", "tmpfs", "lustre", "gpfs", "beegfs", "ceph", "wekafs", "")),
        *((kind, VISIBILITY_DELAY_SECONDS) for kind in ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "new")),
    ],
)
def test_only_file_systems_that_may_show_files_late_are_waited_for(
    kind: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(kind, monkeypatch)
    assert visibility_delay(Path("/x/run")) == seconds


def test_a_file_that_another_host_wrote_late_is_waited_for(tmp_path: Path) -> None:
    """As on NFS, which shows new files late; on a local disk nothing is waited for."""
    late = tmp_path / "late"
    threading.Timer(0.5, late.touch).start()
    assert visibility_delay(late) == 0
    assert wait_for_files([late]) == [late]
    assert wait_for_files([late], seconds=30) == []
    assert wait_for_files([late, tmp_path / "never"], seconds=1) == [tmp_path / "never"]


def test_a_wait_for_many_files_lists_few_folders_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 shards, 3 of them finished, on NFS."""
    mounted("nfs4", monkeypatch)
    now, listed, honest = [0.0], [], os.listdir
    monkeypatch.setattr(visibility.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(visibility.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(visibility.os, "listdir", lambda path: listed.append(path) or honest(path))
    paths = [tmp_path / f"{shard:05d}" / "manifest.json" for shard in range(500)]
    for path in paths[:3]:
        path.parent.mkdir()
        path.touch()
    caplog.set_level(logging.WARNING)
    assert wait_for_files(paths) == paths[3:]
    assert VISIBILITY_DELAY_SECONDS <= now[0] < VISIBILITY_DELAY_SECONDS + 1
    assert set(listed) == {tmp_path, paths[3].parent}
    assert len(listed) <= 20
    first, last = caplog.messages
    assert first.startswith(f"waiting for {paths[3]} and 496 more, 90 s at most: a file system of type nfs4 may show")
    assert last == "waited 90 s: 497 still missing"


def test_a_file_whose_rename_lost_its_answer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The NFS client remembers that the new name did not exist, and sees the renamed file only later."""
    (tmp_path / "run").mkdir()
    waits: list[list[float]] = []

    def replace(source: Path, target: Path) -> None:
        source.rename(target)
        waits.append(show_late(target, monkeypatch))
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))

    monkeypatch.setattr(Path, "replace", replace)
    atomic_write_bytes(tmp_path / "run" / "file", b"new")
    assert (tmp_path / "run" / "file").read_bytes() == b"new"
    assert [len(each) for each in waits] == [1]


@pytest.mark.parametrize("there", [True, False])
def test_a_rename_that_failed_is_an_error(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name may have a different file; then the temporary one was lost."""
    path = tmp_path / "file"
    if there:
        path.write_bytes(b"old")

    def replace(source: Path, target: Path) -> None:
        source.unlink()
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="Input/output error"):
        atomic_write_bytes(path, b"new")
    assert path.exists() is there
