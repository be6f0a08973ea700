"""A disk that is full, a quota, a disk that is read-only: the message says so, nothing half-written is taken for
whole, and once there is room a resume ends where an undisturbed run ends.

The disks are real: small tmpfs, mounted for the test, which needs root.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedkit.check.verify import verify
from embedkit.run import RunFolder
from tests.conftest import EMBEDKIT, ROOT, chat, embedkit, hash_request, snapshot, write_chats
from tests.support.checkout import SUPPORT, python_path

pytestmark = pytest.mark.slow  # whole runs, again and again

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
BLOCK = 4096


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB, to be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64m", "none", folder)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave(disk: Path, free: int) -> None:
    """Fill the disk, except for `free` bytes."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    size = os.statvfs(disk).f_bavail * BLOCK - free
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    assert os.statvfs(disk).f_bavail * BLOCK == free


FULL = (
    r"the disk is full: No space left on device at \S+ \(file system \S+, tmpfs\)"
    "; free some space and resume"
)
QUOTA_USED = r"a quota is used up: Disk quota exceeded at \S+/\.?{}\S* \(file system .*\); remove files .* and resume"
NO_INODE = r"no inode is left: No space left on device at \S+ \(file system \S+, tmpfs\); .*: remove some .* and resume"
TOO_LARGE = r"the file is larger than the limit of \S+ MiB \(ulimit -f\): File too large at \S+ .* unlimited and resume"


def fails_for_want_of_room(*arguments: object, why: str = FULL, **environment: str) -> bool:
    """Run a command on the full disk; whether it failed, and then for that reason and with the way on."""
    done = embedkit(*arguments, check=False, **environment)
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        return False
    assert done.returncode == 1
    assert re.search(f"{why}: finished work is kept", done.stderr), done.stderr
    assert "embedkit run --resume --run-name run --output-dir" in done.stderr
    return True


def is_sound(run: RunFolder) -> bool:
    return not run.config.exists() or verify(run).ok


def resume(run: RunFolder) -> None:
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", run.path.parent)


@needs_root
def test_a_full_disk_in_any_stage_loses_nothing(
    disk: Path, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder
) -> None:
    request = hash_request(small_chats, tokenizer_only, disk)
    run = RunFolder(disk / "run")
    stages: list[tuple[list[object], list[int]]] = [
        (["prepare", *request, "--resume", "--workers", 2], [16, 100]),
        (["embed", run.path], [0, 16, 1024]),
        (["merge", run.path], [4, 1024, 4800]),
    ]
    for command, kilobytes in stages:
        for free in kilobytes:
            leave(disk, free << 10)
            assert fails_for_want_of_room(*command), f"{command[0]} needed less than {free} kB"
            assert is_sound(run)
        leave(disk, 16 << 20)
        embedkit(*command)
        assert is_sound(run)
    assert snapshot(run) == snapshot(hash_run)
    assert not list(run.path.rglob("*.tmp"))


@needs_root
def test_a_run_whose_disk_grows_goes_on(
    disk: Path, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder
) -> None:
    """Through the queue, whose own files and logs need room too. The disk grows as a quota is raised."""
    request = hash_request(small_chats, tokenizer_only, disk)
    run = RunFolder(disk / "run")
    for size in (16, 128, 700, 1800, 4000):
        mount("-o", f"remount,size={size}k", disk)
        assert fails_for_want_of_room("run", *request, "--resume"), f"it needed less than {size} kB"
        assert is_sound(run)
    mount("-o", "remount,size=64m", disk)
    resume(run)
    assert snapshot(run) == snapshot(hash_run)
    assert is_sound(run)


@needs_root
def test_a_full_disk_under_dropped_rows_is_reported(disk: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """Polars writes them, and raises errors of its own."""
    sources = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(4000)]
    data = write_chats(tmp_path / "d.parquet", [chat("q", "")] * 3999 + [chat("q", "a")], sources)
    request = hash_request(data, tokenizer_only, disk)
    leave(disk, 120 << 10)
    done = embedkit("prepare", *request, "--shards", 1, check=False)
    assert done.returncode == 1
    where = f"{disk / 'run' / 'parts' / 'dropped-00000.parquet'} (file system {disk}, tmpfs)"
    assert f"the disk is full: No space left on device at {where}; free some space and resume" in done.stderr
    assert is_sound(RunFolder(disk / "run"))
    leave(disk, 16 << 20)
    resume(RunFolder(disk / "run"))


def test_a_fake_quota_at_any_kind_of_file_loses_nothing(
    small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    """tests/support/quota/ plays a network file system, which reports a quota when it is asked to sync a file."""
    request = hash_request(small_chats, tokenizer_only, tmp_path)
    run = RunFolder(tmp_path / "run")
    parts = ("index.json", "part-00001.parquet", "dropped-00001.parquet", "part-00001.json", "dropped_rows.parquet")
    stages: list[tuple[list[object], tuple[str, ...]]] = [
        (["prepare", *request, "--resume", "--workers", 1], (*parts, "plan.json")),
        (["embed", run.path], (r".*\.safetensors\.partial", r".*\.journal\.jsonl", "manifest.json")),
        (["merge", run.path], (r"all\.safetensors", "metadata.parquet", r"embeddings\.safetensors", "_SUCCESS.json")),
    ]
    for command, files in stages:
        for file in files:
            quota = python_path(SUPPORT / "quota") | {"EMBEDKIT_TEST_QUOTA": file}
            assert fails_for_want_of_room(*command, why=QUOTA_USED.format(file), **quota), f"{command[0]}: {file}"
            assert is_sound(run)
        embedkit(*command)
    assert snapshot(run) == snapshot(hash_run)


def leave_inodes(disk: Path, free: int) -> None:
    """Use up the disk's inodes, except for some. There are free bytes."""
    ballast = disk / "many"
    shutil.rmtree(ballast, ignore_errors=True)
    ballast.mkdir()
    for i in range(os.statvfs(disk).f_favail - free):
        (ballast / str(i)).touch()
    assert os.statvfs(disk).f_favail == free


@needs_root
def test_a_disk_without_inodes_is_named_as_such_in_every_stage(
    disk: Path, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder
) -> None:
    mount("-o", "remount,nr_inodes=300", disk)
    run = RunFolder(disk / "run")
    stages: list[tuple[list[object], int]] = [
        (["prepare", *hash_request(small_chats, tokenizer_only, disk), "--resume", "--workers", 2], 6),
        (["embed", run.path], 3),
        (["merge", run.path], 5),
        (["analyze", run.path], 1),
    ]
    for command, free in stages:
        leave_inodes(disk, free)
        done = embedkit(*command, check=False)
        assert done.returncode == 1, f"{command[0]} needed less than {free} inodes"
        assert re.search(NO_INODE, done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        assert is_sound(run)
        shutil.rmtree(disk / "many")
        if command[0] != "analyze":
            embedkit(*command)
    assert snapshot(run) == snapshot(hash_run)


def test_a_limit_of_file_sizes_is_named_as_such(
    small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    """The limit refuses the rest of a write whose begin it lets through."""
    run = RunFolder(tmp_path / "run")
    stages: list[tuple[list[object], int]] = [
        (["prepare", *hash_request(small_chats, tokenizer_only, tmp_path), "--resume", "--workers", 1], 8_000),
        (["embed", run.path], 20_000),
        (["merge", run.path], 20_000),
    ]
    for command, limit in stages:
        words = ["prlimit", f"--fsize={limit}", *EMBEDKIT, *map(str, command)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 1, command
        assert re.search(TOO_LARGE, done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        assert is_sound(run)
        embedkit(*command)
    assert snapshot(run) == snapshot(hash_run)


@needs_root
@pytest.mark.parametrize("stage", ["prepare", "embed", "merge", "run"])
def test_a_read_only_disk_is_reported_and_can_be_read(stage: str, disk: Path, hash_run: RunFolder) -> None:
    run = RunFolder(disk / "run")
    shutil.copytree(hash_run.path, run.path)
    run.success.unlink()
    shutil.rmtree(run.shard(2)) if stage != "merge" else None
    mount("-o", "remount,ro", disk)
    resume = ["--resume", "--run-name", "run", "--output-dir", disk]
    done = embedkit(stage, *(resume if stage in ("prepare", "run") else [run.path]), check=False)
    assert done.returncode == 1
    assert re.search(rf"Read-only file system at {run.path}.*; change that, or choose another folder", done.stderr)
    assert "to continue: embedkit run --resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert embedkit("verify", run.path).returncode == 0
    assert "prepare  done" in embedkit("status", run.path, code=1).stdout


@needs_root
def test_a_read_only_output_folder_is_reported(disk: Path, small_chats: Path, tokenizer_only: Path) -> None:
    mount("-o", "remount,ro", disk)
    done = embedkit("run", *hash_request(small_chats, tokenizer_only, disk), check=False)
    assert done.returncode == 1
    assert (
        f"Read-only file system at {disk / 'run'}; change that, or choose another folder with --output-dir"
        in done.stderr
    )
