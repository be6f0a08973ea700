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
from collections.abc import Iterator
from functools import partial
from io import FileIO
from pathlib import Path

from embedkit.errors import EmbedkitError
from embedkit.storage.named_errors import names_file
from embedkit.storage.visibility import wait_for_files

BLOCK_BYTES = 8 << 20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk; an exceeded quota counts as one."""
RWF_DONTCACHE = 0x80
"""A flag of preadv2, since Linux 6.14 and not on every file system. Python has no name for it."""


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
        with names_file(folder):
            os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)


def durable_mkdir(folder: Path) -> None:
    """Make a folder, and those above it that are missing. Their names are durable when this returns.

    A folder that another process is making at this moment is left to that process.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        fsync_folder(one.parent)


def fsync_file(path: Path) -> None:
    """Make the bytes of a file durable, whoever wrote them."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with names_file(path):
            os.fsync(fd)
    finally:
        os.close(fd)


def durable_rename(temporary: Path, path: Path) -> None:
    """Put a finished temporary file in place: fsync it, rename it, fsync the folder."""
    fsync_file(temporary)
    rename_over(temporary, path)
    fsync_folder(path.parent)


def rename_over(temporary: Path, path: Path) -> None:
    """Rename a file, replacing what has the new name.

    NFS may rename it and lose the answer: the client asks again and gets ENOENT, or fails with EIO. The file that has
    the new name decides. The client may remember for a while that the new name did not exist, so it is waited for.
    """
    renamed = temporary.stat()
    try:
        temporary.replace(path)
    except OSError:
        if temporary.exists() or wait_for_files([path]) or not _is_file(path, renamed):
            raise


def _is_file(path: Path, found: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        here = path.stat()
        return (here.st_dev, here.st_ino) == (found.st_dev, found.st_ino)
    return False


@contextlib.contextmanager
def atomic_write(path: Path, temporary_folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to. On success it becomes `path`, on an error it is removed.

    `temporary_folder` is for a folder in which no temporary file may appear (readers take all files there for data).
    It must be on the same file system as `path`.
    """
    folder = path.parent if temporary_folder is None else temporary_folder
    temporary = folder / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with names_file(path):
            yield temporary
        durable_rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a small file. Readers see all of it or none."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def remove_temporaries(folder: Path, names: str = "*") -> None:
    """Remove temporary files of killed writers from `folder`. `names` is a glob of the final names."""
    for path in sorted(folder.glob(f".{names}.tmp")):
        path.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Whether `remove_temporaries` removes a file of this name."""
    return name.startswith(".") and name.endswith(".tmp")


def sha256_file(path: Path, keep_cached: bool = True) -> str:
    """sha256 of a file's bytes, hexadecimal. keep_cached: as for read_into."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := read_into(file, buffer, keep_cached):
            digest.update(buffer[:count])
    return digest.hexdigest()


def read_into(file: FileIO, buffer: memoryview, keep_cached: bool = True) -> int:
    """Fill a buffer from the file's position, or up to the end of the file. Returns the number of bytes.

    Also requests that the system read the next block ahead, while the caller hashes this one.

    keep_cached: whether the system shall keep a copy in memory of what it had to read. Without, it need not look for
    free memory, and drops less of what others use.
    """
    read = file.readinto if keep_cached else partial(_read_uncached, file)
    filled = 0
    while filled < len(buffer) and (count := read(buffer[filled:])):
        filled += count
    if filled and hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), file.tell(), len(buffer), os.POSIX_FADV_WILLNEED)
    return filled


def _read_uncached(file: FileIO, buffer: memoryview) -> int:
    """Read from the file's position. What the system had to read for it, it then drops from memory, if it can."""
    if hasattr(os, "preadv"):
        # A system, a file system, a sandbox or a Python may not have the flag. Other errors come again below.
        with contextlib.suppress(OSError, NotImplementedError):
            return os.preadv(file.fileno(), [buffer], -1, RWF_DONTCACHE)  # -1: the position, which moves
    return file.readinto(buffer) or 0
