"""Errors of the operating system, described for people: a full disk, a quota, a limit, a read-only folder and so on."""

import errno
import os
import re
import resource
from pathlib import Path

from embedkit.storage import DISK_FULL, mount_of

FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
OF_THE_STORAGE = (errno.EIO, errno.ESTALE, errno.EMLINK, errno.ENOTCONN, errno.EREMOTEIO, errno.ETIMEDOUT)
"""Errors of a disk or a file server: no stack explains them."""
TOO_LARGE = (errno.EFBIG,)
KEPT = "finished work is kept"
LIMITS = {
    errno.EMFILE: "this process may open no more files (ulimit -n): raise that limit and resume",
    errno.ENFILE: "this machine can open no more files: resume when less runs on it",
    errno.EAGAIN: "no process or thread can be started (ulimit -u, or a limit of the job): raise it and resume",
    errno.ENOMEM: "there is no memory left (ulimit -v, or the memory of the job): give it more and resume",
}
"""What is used up, and what to do, for errors about processes and memory."""
EXPLAINED = (*DISK_FULL, *TOO_LARGE, *FORBIDDEN, *LIMITS, *OF_THE_STORAGE)
"""Errors whose cause and remedy are outside embedkit, so that a traceback says nothing more."""
NO_THREAD = "can't start new thread"
MEBIBYTE = 1 << 20
SCARCE = 0.1
"""Share of a file system's inodes that is free, below which they may be what is used up."""


def errno_of(error: BaseException) -> int | None:
    """Return the errno of an operating system's error, also of one that a library wrapped; None for all others."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, RuntimeError) and str(error) == NO_THREAD:
        return errno.EAGAIN
    found = re.search(r"\(os error (\d+)\)", str(error))  # polars wraps it in its own exceptions
    return int(found[1]) if found else None


def describe_os_error(error: Exception, folder: Path | None = None, option: str = "--output-dir") -> str | None:
    """Describe an operating system's error and what to do about it; None for all other errors.

    Args:
        error: the exception.
        folder: named for errors that name no file.
        option: the command's option that chooses another folder.
    """
    number = errno_of(error)
    if number is None:
        return str(error) if isinstance(error, OSError) else None
    file = getattr(error, "filename", None)
    place = folder if file is None else Path(os.fsdecode(file))
    what = os.strerror(number) + (f" at {place}" if place else "")
    if number in (*DISK_FULL, *TOO_LARGE):
        return _no_room(number, what, place)
    if number in FORBIDDEN:
        if number != errno.EROFS and file is None:
            return f"{error}; {KEPT}"  # it may be one of another folder
        if number != errno.EROFS and place is not None and not _may_be_read(place):
            return f"{what}: it may not be read (namei -l shows who may); change that, or name a different one"
        return f"{what}; change that, or choose another folder with {option}; {KEPT}"
    if number in LIMITS:
        return f"{what}: {LIMITS[number]}; {KEPT}"
    return what


def _may_be_read(place: Path) -> bool:
    """Whether a file or folder may be read, or else made where nothing is."""
    try:
        place.stat()
    except FileNotFoundError:
        return True
    except OSError:  # of a folder above it
        return False
    return os.access(place, os.R_OK | (os.X_OK if place.is_dir() else 0))


def _no_room(number: int, what: str, place: Path | None) -> str:
    """Describe a write for which there was no room: of the disk, a quota, inodes or the size of a file."""
    what += "" if place is None else _file_system(place)
    if number == errno.EFBIG:
        soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if soft == resource.RLIM_INFINITY:
            return (
                f"the file is too large for its file system: {what}; choose a different one, or more --shards; {KEPT}"
            )
        limit = f"{soft / MEBIBYTE:,.2f} MiB (ulimit -f)"
        return f"the file is larger than the limit of {limit}: {what}; type ulimit -f unlimited and resume: {KEPT}"
    if number == errno.EDQUOT:
        return (
            f"a quota is used up: {what}; remove files of yours or of your group there, or ask for more bytes or files "
            f"(quota -s, lfs quota -h), and resume: {KEPT}"
        )
    if place is not None and _lacks_inodes(place):
        return (
            f"no inode is left: {what}; there are free bytes, but no more files can be made: remove some files there "
            f"(df -i shows how many there are) and resume: {KEPT}"
        )
    return f"the disk is full: {what}; free some space and resume: {KEPT}"


def _file_system(place: Path) -> str:
    mount = mount_of(place)
    return f" (file system {mount.point}, {mount.kind})" if mount.point else ""


def _lacks_inodes(place: Path) -> bool:
    """Whether a file system has room for bytes, and for few files or none."""
    try:
        space = os.statvfs(_existing(place))
    except OSError:
        return False
    if not space.f_files:  # some file systems make inodes as they need them, and report none
        return False
    # What was not finished has been removed by now, so neither is quite used up.
    inodes, blocks = space.f_favail / space.f_files, space.f_bavail / max(space.f_blocks, 1)
    return inodes < min(SCARCE, blocks)


def _existing(place: Path) -> Path:
    """The place itself, or the nearest folder above it that is there."""
    return next((path for path in (place, *place.absolute().parents) if path.exists()), Path("/"))
