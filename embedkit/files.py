"""Durable files: a reader sees a whole file or none, and a file that was seen survives a crash.

The order is the one that works on local disks, NFS and Lustre alike: write under a temporary name on the
same file system, flush, fsync, rename, fsync the folder.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from embedkit.errors import EmbedkitError

BLOCK_BYTES = 8 << 20


def new_attempt() -> str:
    """A name for one start of a task: job and restart under Slurm, unique everywhere."""
    job = os.environ.get("SLURM_JOB_ID", "local")
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    return f"{job}-{restart}-{secrets.token_hex(4)}"


def follow_mode(folder: Path) -> None:
    """Make what this process and its children create from now on as open as `folder`: to its group, to others.

    Only the umask is set; the group itself is handed down by the folder's setgid bit.
    """
    os.umask(~folder.stat().st_mode & 0o077)


def private_folder(folder: Path) -> Path:
    """Make a folder this user's alone, so that what is in it can be trusted, pickles included; returns it.

    Raises EmbedkitError if it is another user's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise EmbedkitError(f"{folder} is not yours, so what is in it cannot be trusted; move it away, and resume")
    folder.chmod(0o700)
    return folder


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


def rename_durably(temporary: Path, path: Path) -> None:
    """Put a finished temporary file in place: fsync it, rename it, fsync the folder."""
    fsync_file(temporary)
    temporary.replace(path)
    fsync_folder(path.parent)


@contextlib.contextmanager
def durable(path: Path, temporary_folder: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it becomes `path`, on an error it is removed.

    `temporary_folder` is for folders that may hold nothing foreign even for a moment; it must be on the
    same file system.
    """
    folder = path.parent if temporary_folder is None else temporary_folder
    temporary = folder / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
        rename_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file so that readers see all of it or none."""
    with durable(path) as temporary:
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
    """Remove what killed writers of `durable` left in `folder`; `names` is a glob for some of them."""
    for path in sorted(folder.glob(f".{names}.tmp")):
        path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
