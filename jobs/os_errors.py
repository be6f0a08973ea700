"""Errors of the operating system, described for people: a full disk, a read-only folder and the like."""

import errno
import os
import re
from pathlib import Path

from embedkit.storage import DISK_FULL

FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
OF_THE_STORAGE = (errno.EIO, errno.ESTALE, errno.EMLINK, errno.ENOTCONN, errno.EREMOTEIO, errno.ETIMEDOUT)
"""Errors of a disk or a file server: no stack explains them."""


def errno_of(error: Exception) -> int | None:
    """Return the errno of an operating system's error, also of one that a library wrapped; None for all others."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))  # polars wraps it in its own exceptions
    return int(found[1]) if found else None


def describe_os_error(error: Exception, folder: Path | None = None) -> str | None:
    """Describe an operating system's error and what to do about it; None for all other errors.

    Args:
        error: the exception. An exceeded quota is described as a full disk.
        folder: named for errors that name no file.
    """
    number = errno_of(error)
    if number is None:
        return str(error) if isinstance(error, OSError) else None
    place = getattr(error, "filename", None) or folder
    what = os.strerror(number) + (f" at {place}" if place else "")
    if number in DISK_FULL:
        return f"the disk is full: {what}; free some space and resume: finished work is kept"
    if number in FORBIDDEN:
        return f"{what}; change that, or choose another folder with --output-dir; finished work is kept"
    return what
