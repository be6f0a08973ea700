"""Durable files: a reader sees a complete file or none, and a file that was seen survives a crash.

The order of steps works on local disks, NFS and Lustre alike: write under a temporary name on the same file system,
flush, fsync, rename, fsync the folder.
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

from embedkit.errors import EmbedkitError
from embedkit.storage.mounts import mount_of
from embedkit.storage.name_file import name_file

BLOCK_BYTES = 8 << 20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk; an exceeded quota counts as one."""

VISIBILITY_DELAY_SECONDS = 90.0
"""NFS may take this long to show one host a file that another host wrote (acdirmax is 60 s by default)."""
LOCAL_FILE_SYSTEMS = {
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
"""File systems of a single host, which show new files at once."""


def match_umask(folder: Path) -> None:
    """Make files that this process and its children create as accessible to group and others as `folder` is.

    This sets only the umask. New files get the folder's group from its setgid bit.
    """
    os.umask(~folder.stat().st_mode & 0o077)


def private_folder(folder: Path) -> Path:
    """Make a folder, or an existing one, accessible to this user only. Returns the folder.

    Its files, pickles included, can then be trusted. Raises EmbedkitError if another user owns the folder.
    """
    _make_folder(folder)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise EmbedkitError(f"{folder} is not yours, so its files cannot be trusted; move it away, and resume")
    folder.chmod(0o700)
    return folder


def _make_folder(folder: Path) -> None:
    """Make a folder unless it exists. `mkdir` alone fails if another process removes the folder at that moment."""
    while True:
        try:
            return folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(folder.lstat().st_mode):
                    raise


def new_private_folder(parent: Path) -> Path:
    """Make a new folder in `parent`, which becomes private too. Raises as private_folder."""
    return Path(tempfile.mkdtemp(dir=private_folder(parent), prefix=""))


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Ignores file systems that cannot fsync a folder (EINVAL)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make the bytes of a file durable, whoever wrote them."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with name_file(path):
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
    """Yield a temporary path to write to. On success it becomes `path`, on an error it is removed.

    `temporary_folder` is for a folder in which no temporary file may appear (readers take all files there for data).
    It must be on the same file system as `path`.
    """
    folder = path.parent if temporary_folder is None else temporary_folder
    temporary = folder / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with name_file(path):
            yield temporary
            durable_rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a small file. Readers see all of it or none."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_once(path: Path, data: bytes) -> bool:
    """Write a small complete file unless it exists. Returns whether this call wrote it.

    Of several writers at once, on several hosts, exactly one succeeds: link(2) is atomic, also on NFS.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with name_file(path):
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
    """Remove temporary files of killed writers from `folder`. `names` is a glob of the final names."""
    for path in sorted(folder.glob(f".{names}.tmp")):
        path.unlink(missing_ok=True)


def wait_for_files(paths: Sequence[Path], seconds: float | None = None) -> list[Path]:
    """Wait until the files exist, `seconds` at most. Returns those that are still missing.

    By default waits for visibility_delay: on a network file system another host may have written them already.
    """
    missing = [path for path in paths if not path.exists()]
    if not missing:
        return []
    deadline = time.monotonic() + (visibility_delay(missing[0]) if seconds is None else seconds)
    while missing and time.monotonic() < deadline:
        time.sleep(1.0)
        for folder in sorted({path.parent for path in missing}):
            with contextlib.suppress(OSError):
                os.listdir(folder)  # listing a folder asks the server; looking up a name may not  # noqa: PTH208
        missing = [path for path in missing if not path.exists()]
    return missing


def visibility_delay(path: Path) -> float:
    """Seconds until this host is sure to see a file at `path` that another host wrote: 0 on a local file system.

    Also 0 if the type of the file system is not known.
    """
    kind = mount_of(path).kind
    return 0.0 if kind in LOCAL_FILE_SYSTEMS or not kind else VISIBILITY_DELAY_SECONDS


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := read_into(file, buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def read_into(file: FileIO, buffer: memoryview) -> int:
    """Fill a buffer from the file's position, or up to the end of the file. Returns the number of bytes.

    Also requests that the system read the next block ahead, while the caller hashes this one.
    """
    filled = 0
    while filled < len(buffer) and (count := file.readinto(buffer[filled:])):
        filled += count
    if filled and hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), file.tell(), len(buffer), os.POSIX_FADV_WILLNEED)
    return filled
