"""Errors of the operating system are named as what they are, with the file, its file system and what to do."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedkit.storage import names_file
from jobs.os_errors import describe_os_error
from tests.conftest import ROOT, chat, write_chats


@pytest.mark.parametrize(
    ("error", "start", "remedy"),
    [
        (OSError(errno.EDQUOT, "x"), "a quota is used up: ", "remove files of yours or of your group there"),
        (OSError(errno.ENOSPC, "x"), "the disk is full: ", "free some space and resume"),
        (OSError(errno.EFBIG, "x"), "the file is too large for its file system: ", "choose a different one"),
        (OSError(errno.EROFS, "x"), "Read-only file system at ", "choose another folder with --output-dir"),
        (OSError(errno.EMFILE, "x"), "Too many open files at ", "ulimit -n"),
        (RuntimeError("can't start new thread"), "Resource temporarily unavailable at ", "ulimit -u"),
        (MemoryError(), "Cannot allocate memory at ", "give it more and resume"),
        (OSError("No space left on device (os error 28)"), "the disk is full: ", "free some space and resume"),
        (ValueError("polars: failed (os error 122)"), "a quota is used up: ", "quota -s"),
    ],
)
def test_what_is_wrong_where_and_what_to_do(error: Exception, start: str, remedy: str, tmp_path: Path) -> None:
    file = tmp_path / "run" / "a.parquet"
    with pytest.raises((OSError, type(error))) as caught, names_file(file):
        raise error
    described = describe_os_error(caught.value, tmp_path)
    assert described is not None
    assert described.startswith(start)
    assert str(file if isinstance(caught.value, OSError) else tmp_path) in described
    assert remedy in described
    assert described.endswith("finished work is kept")


def test_an_error_that_names_a_file_keeps_it(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "x", "/somewhere")
    with pytest.raises(PermissionError), names_file(tmp_path):
        raise error
    assert "at /somewhere; " in (describe_os_error(error) or "")


NO_ROOT = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
"""Root may read everything, unless it gives that up."""


def test_data_that_may_not_be_read_is_named(tiny_qwen: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "data.parquet", [chat("a", "b")])
    data.chmod(0)
    words = ["prepare", "--dataset", data, "--model", tiny_qwen, "--engine", "hash", "--run-name", "r"]
    command = [*NO_ROOT, sys.executable, "-m", "jobs", *words, "--output-dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.startswith(f"embedkit: Permission denied at {data}: it may not be read")
    assert "--output-dir" not in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("inodes_free", "blocks_free", "named"), [(0, 90, True), (5, 90, True), (50, 90, False), (5, 1, False)]
)
def test_inodes_are_named_where_they_are_what_is_used_up(
    inodes_free: int, blocks_free: int, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up statvfs: of both, per cent are free."""
    space = os.statvfs_result((4096, 4096, 100, blocks_free, blocks_free, 100, inodes_free, inodes_free, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: space)
    described = describe_os_error(OSError(errno.ENOSPC, "x", str(tmp_path)))
    assert (described or "").startswith("no inode is left: " if named else "the disk is full: ")
