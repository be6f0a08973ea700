"""Durable files: a reader sees a whole file or none, and a file that was seen survives a crash.

The order is the one that works on local disks, NFS and Lustre alike: write under a temporary name on the
same file system, flush, fsync, rename, fsync the folder.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

import psutil

from embedkit.errors import EmbedkitError

BLOCK_BYTES = 8 << 20

HIDDEN_SECONDS = 90.0
"""NFS may hide for so long from one host what another has written (acdirmax is 60 s by default)."""
COHERENT = {
    "apfs",
    "bcachefs",
    "btrfs",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hfs",
    "overlay",
    "ramfs",
    "tmpfs",
    "xfs",
    "zfs",
}
"""File systems of one host, where nothing is hidden."""


def follow_mode(folder: Path) -> None:
    """Make what this process and its children create from now on as open as `folder`: to its group, to others.

    Only the umask is set; the group itself is handed down by the folder's setgid bit.
    """
    os.umask(~folder.stat().st_mode & 0o077)


def private_folder(folder: Path) -> Path:
    """Make a folder this user's alone, so that what is in it can be trusted, pickles included; returns it.

    Raises EmbedkitError if it is another user's.
    """
    _make_folder(folder)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise EmbedkitError(f"{folder} is not yours, so what is in it cannot be trusted; move it away, and resume")
    folder.chmod(0o700)
    return folder


def _make_folder(folder: Path) -> None:
    """Make a folder unless it is there; `mkdir` alone fails where somebody removes it at that moment."""
    while True:
        try:
            return folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(folder.lstat().st_mode):
                    raise


def new_private_folder(parent: Path) -> Path:
    """A new folder in `parent`, which becomes private too; raises as private_folder."""
    return Path(tempfile.mkdtemp(dir=private_folder(parent), prefix=""))


def fsync_folder(folder: Path) -> None:
    """Make the folder's names durable; file systems that cannot fsync a folder (EINVAL) are tolerated."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Flush the bytes of a file that a library wrote."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def durable_rename(temporary: Path, path: Path) -> None:
    """Put a finished temporary file in place: fsync it, rename it, fsync the folder."""
    fsync_file(temporary)
    temporary.replace(path)
    fsync_folder(path.parent)


@contextlib.contextmanager
def atomic_write(path: Path, temporary_folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it becomes `path`, on an error it is removed.

    `temporary_folder` is for folders that may hold nothing foreign even for a moment; it must be on the
    same file system.
    """
    folder = path.parent if temporary_folder is None else temporary_folder
    temporary = folder / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
        durable_rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a small file so that readers see all of it or none."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_once(path: Path, data: bytes) -> bool:
    """Write a small file whole unless it is there already; returns whether this call wrote it.

    Of several writers at once, on several hosts, exactly one wins: link(2) is atomic, on NFS too.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        temporary.write_bytes(data)
        fsync_file(temporary)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return True


def remove_temporaries(folder: Path, names: str = "*") -> None:
    """Remove what killed writers of `atomic_write` left in `folder`; `names` is a glob for some of them."""
    for path in sorted(folder.glob(f".{names}.tmp")):
        path.unlink(missing_ok=True)


def still_missing(paths: Sequence[Path], seconds: float | None = None) -> list[Path]:
    """Those of the paths that are not there, looked for again and again for `seconds`, by default hidden_seconds."""
    missing = [path for path in paths if not path.exists()]
    if not missing:
        return []
    deadline = time.monotonic() + (hidden_seconds(missing[0]) if seconds is None else seconds)
    while missing and time.monotonic() < deadline:
        time.sleep(1.0)
        for folder in sorted({path.parent for path in missing}):
            with contextlib.suppress(OSError):
                os.listdir(folder)  # listing a folder asks the server; looking a name up may not  # noqa: PTH208
        missing = [path for path in missing if not path.exists()]
    return missing


def hidden_seconds(path: Path) -> float:
    """How long a file there may be hidden from this host after another wrote it: 0 on a local file system."""
    path = path.resolve()
    mounts = {partition.mountpoint: partition.fstype for partition in psutil.disk_partitions(all=True)}
    fstype = next((mounts[str(parent)] for parent in (path, *path.parents) if str(parent) in mounts), "overlay")
    return 0.0 if fstype in COHERENT else HIDDEN_SECONDS


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := read_into(file, buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def read_into(file: FileIO, buffer: memoryview) -> int:
    """Fill a buffer of bytes from where the file stands, or as far as it goes; returns how many bytes.

    The system is asked to fetch as much again meanwhile: disks are slow to first byte, and what follows is hashing.
    """
    filled = 0
    while filled < len(buffer) and (count := file.readinto(buffer[filled:])):
        filled += count
    if filled and hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), file.tell(), len(buffer), os.POSIX_FADV_WILLNEED)
    return filled
