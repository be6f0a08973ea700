"""Free space and quotas, and the sentence about what does not fit."""

import os
from pathlib import Path

import msgspec
import pytest

from embedkit.forecast.disk_space import Quota, Space, free_bytes, parse_lfs_quota, parse_quota, shortfall
from embedkit.forecast.footprint import Footprint

QUOTA = """\
Disk quotas for user alice (uid 1042): 
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
nas01:/export/home 20971520* 20000000 30000000 1795370000   41230   90000  100000       0
/dev/mapper/vg0-scratch  512000       0       0       0     100       0       0       0
Disk quotas for group lab (gid 500): 
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
nas01:/export/home  900000000 1000000000       0       0 2000000*      0 2000000       0
Disk quotas for group staff (gid 20): none
"""  # noqa: W291
NO_QUOTA = "Disk quotas for user alice (uid 1042): none\n"
LFS = "/lustre/scratch 1073741824  0  2147483648  -  54321  0  1000000  -\n"
LFS_LONG = """\
/lustre/fs1/projects/a-very-long-name
                [5368709120*] 4294967296 5368709120 6d23h59m45s   12345       0       0       -
Some errors happened when getting quota info. Some devices may be not working or deactivated.
"""
RUN = Footprint(bytes=9 * 10**9, files=1000, by_kind={}, peak_bytes=10 * 10**9, peak_files=1200)


def test_output_written_after_quotas_manual_is_read_by_device() -> None:
    user, group = parse_quota(QUOTA, "nas01:/export/home")
    assert user == Quota("user alice", (30000000 - 20971520) * 1024, 100000 - 41230)
    assert group == Quota("group lab", 100000000 * 1024, 0)
    assert parse_quota(QUOTA, "/dev/mapper/vg0-scratch") == (Quota("user alice", None, None),)
    assert parse_quota(QUOTA, "/dev/sda1") == parse_quota(NO_QUOTA, "/dev/sda1") == ()


def test_output_written_after_lfs_quotas_manual_is_read() -> None:
    assert parse_lfs_quota(LFS, "user 1", "/lustre/scratch") == Quota("user 1", 1073741824 * 1024, 945_679)
    long = parse_lfs_quota(LFS_LONG, "group 5", "/lustre/fs1/projects/a-very-long-name")
    assert long == Quota("group 5", 0, None)
    assert parse_lfs_quota("Permission denied.\n", "user 1", "/lustre") is None


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    space = free_bytes(tmp_path / "not" / "there")
    disk = os.statvfs(tmp_path)
    assert space.folder == str(tmp_path)
    assert space.bytes == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.1)


@pytest.mark.parametrize(
    "script", [None, "exit 1", "echo no such thing >&2", "echo gibberish; exit 3", "exec sleep 60"]
)
def test_a_quota_that_cannot_be_read_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    monkeypatch.setattr("embedkit.forecast.disk_space.TIMEOUT_SECONDS", 0.5)
    stand_in(tmp_path, monkeypatch, script)
    assert free_bytes(tmp_path).quotas is None


def test_a_quota_that_is_used_up_is_found_by_a_stand_in_for_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedkit.forecast.disk_space.mount_of", lambda *_: ("nas01:/export/home", "/home", "nfs4"))
    (tmp_path / "printed").write_text(QUOTA)
    stand_in(tmp_path, monkeypatch, f"/bin/cat {tmp_path}/printed; exit 1")
    space = free_bytes(tmp_path)
    assert [quota.of for quota in space.quotas or ()] == ["user alice", "group lab"]
    assert shortfall(RUN, space) is not None


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str | None) -> None:
    tools = folder / "bin"
    tools.mkdir()
    if script is not None:
        (tools / "quota").write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{script}\n")
        (tools / "quota").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))


@pytest.mark.parametrize(("size", "files", "fits"), [(0, 0, True), (-1, 0, False), (0, -1, False)])
def test_the_peak_must_fit_and_not_only_the_finished_run(size: int, files: int, fits: bool) -> None:
    """The peak is 10 GB and 1,200 files: the disk and each quota may have just as much left, and not one less."""
    left, left_files = RUN.peak_bytes + size, RUN.peak_files + files
    roomy = Space(folder="/scratch", bytes=10**12, files=10**6, quotas=None)
    on_disk = msgspec.structs.replace(roomy, bytes=left, files=left_files)
    in_quota = msgspec.structs.replace(roomy, quotas=(Quota("group lab", left, left_files),))
    assert [shortfall(RUN, space) is None for space in (on_disk, in_quota)] == [fits, fits]


def test_what_does_not_fit_is_said_in_a_sentence() -> None:
    roomy = Space(folder="/scratch", bytes=10**12, files=10**6, quotas=None)
    assert shortfall(RUN, roomy) is None
    assert shortfall(RUN, msgspec.structs.replace(roomy, files=None)) is None
    said = shortfall(RUN, msgspec.structs.replace(roomy, bytes=10**9))
    assert said == "the run needs about 10.0 GB at its peak, and the disk at /scratch has 1.0 GB left"
    said = shortfall(RUN, msgspec.structs.replace(roomy, files=1100))
    assert said == "the run needs about 1,200 files (inodes), and the disk at /scratch has 1,100 left"
    quotas = (Quota("user alice", None, None), Quota("group lab", 5 * 10**9, None))
    assert "the quota of group lab at /scratch has 5.0 GB left" in str(
        shortfall(RUN, msgspec.structs.replace(roomy, quotas=quotas))
    )
