"""The file system of a folder: one answer, whoever asks."""

from pathlib import Path

import pytest

from embedkit.forecast.disk_space import free_bytes
from embedkit.storage import mounts
from embedkit.storage.mounts import NO_MOUNT, innermost, mount_of, parse_mounts
from embedkit.storage.visibility import VISIBILITY_DELAY_SECONDS, visibility_delay

MOUNTS = r"""10.0.0.1@o2ib:/fs /lustre lustre rw 0 0
/dev/b /lustre\040two xfs rw 0 0
/dev/a / ext4 rw 0 0
automount /home autofs rw 0 0
nas:/home /home nfs4 rw 0 0
"""


def test_the_mount_is_the_innermost_one_and_the_last_at_a_point() -> None:
    parsed = parse_mounts(MOUNTS)
    assert innermost(Path("/lustre/me/runs"), parsed) == ("10.0.0.1@o2ib:/fs", "/lustre", "lustre")
    assert innermost(Path("/lustre two/x"), parsed).kind == "xfs"
    assert innermost(Path("/lustretwo"), parsed) == ("/dev/a", "/", "ext4")
    assert innermost(Path("/home/me"), parsed) == ("nas:/home", "/home", "nfs4")
    assert innermost(Path("/home"), []) == NO_MOUNT


def test_mounts_that_cannot_be_read_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "LINUX_MOUNTS", tmp_path)  # a folder
    assert mount_of(tmp_path) == NO_MOUNT
    assert visibility_delay(tmp_path) == 0


@pytest.mark.parametrize(
    ("kind", "tool", "delay"),
    [("lustre", "lfs", 0), ("nfs4", "quota", VISIBILITY_DELAY_SECONDS), ("xfs", "quota", 0)],
)
def test_waiting_and_quotas_agree_on_the_file_system(
    kind: str, tool: str, delay: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """visibility_delay and free_bytes see the same type, through a link and a name with a space."""
    folder = tmp_path / "a run"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    escaped = str(folder).replace(" ", r"\040")
    (tmp_path / "mounts").write_text(f"/dev/a / tmpfs rw 0 0\nserver:/x {escaped} {kind} rw 0 0\n")
    monkeypatch.setattr(mounts, "LINUX_MOUNTS", tmp_path / "mounts")
    for name in ("lfs", "quota"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho > {tmp_path}/asked-{name}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mount_of(tmp_path / "link") == ("server:/x", str(folder), kind)
    assert visibility_delay(tmp_path / "link") == delay
    free_bytes(tmp_path / "link")
    assert [path.name for path in tmp_path.glob("asked-*")] == [f"asked-{tool}"]


def test_a_mount_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of folders are bytes, and need not be UTF-8."""
    monkeypatch.setattr(mounts, "LINUX_MOUNTS", tmp_path / "mounts")
    (tmp_path / "mounts").write_bytes(f"server:/x {tmp_path} nfs4 rw 0 0\n".encode() + b"disk /mnt/\xff ext4 rw 0 0\n")
    assert mount_of(tmp_path) == ("server:/x", str(tmp_path), "nfs4")
