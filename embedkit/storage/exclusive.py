"""Files that of several writers, on several hosts, exactly one makes, and that are complete from their first moment.

The bytes are flushed under a temporary name. Then one step gives the file its final name, and fails if that exists:
link(2), or renameat2(2) with RENAME_NOREPLACE where hard links are refused (FAT, exFAT, SMB, some FUSE file systems).
Both steps exclude each other, so hosts that mount a folder differently may use different ones for one name. A file
created with O_EXCL under its final name excludes others too, but it has its name before its bytes: a reader, or a kill
in between, would meet an incomplete manifest or lock. A file system that has neither step is refused, by name.
"""

import ctypes
import errno
import os
import secrets
from pathlib import Path

from embedkit.errors import EmbedkitError
from embedkit.storage.atomic import atomic_write_bytes, fsync_file, fsync_folder
from embedkit.storage.mounts import mount_of
from embedkit.storage.named_errors import names_file

REFUSED = (
    *(errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EXDEV),
    *(errno.EINVAL, errno.ENOTTY),
)
"""Error numbers with which file systems refuse a step that they do not have."""
AT_FDCWD = -100
RENAME_NOREPLACE = 1


def write_once(path: Path, data: bytes) -> bool:
    """Write a small complete file unless it exists. Returns whether this call wrote it. Its name is durable either way.

    Raises EmbedkitError if the file system can neither link nor rename without replacing.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with names_file(path):
            temporary.write_bytes(data)
        fsync_file(temporary)
        is_ours = place_once(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)  # also of a file that another writer has just made: this caller acts on it
    return is_ours


def place_once(temporary: Path, path: Path) -> bool:
    """Give a complete file its final name unless that exists. Returns whether this call did; `temporary` may remain.

    Raises EmbedkitError if the file system can neither link nor rename without replacing.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if _is_linked(temporary, path, is_refused=error.errno in REFUSED):
            return True  # the answer was lost: NFS made the link, and the client's second request found it there
        if isinstance(error, FileExistsError):
            return False
        if error.errno not in REFUSED:
            raise
        return _rename_once(temporary, path, error)
    return True


def try_storage(folder: Path, name: str) -> str:
    """Try each kind of write that a run makes, in its folder. Returns what was found, in words.

    `name` is part of the name of the file that is written and removed again.

    Raises:
        OSError: a write failed.
        EmbedkitError: files can be neither linked nor renamed without replacing, or a step did something else.
    """
    path = folder / f".{name}.try-{secrets.token_hex(8)}"
    first, second = os.urandom(4096), os.urandom(4096)
    try:
        written = write_once(path, first)
        if not written or write_once(path, second):
            raise EmbedkitError(f"{folder}: its file system lets two writers make one file, so it cannot hold a run")
        _require_bytes(path, first)
        atomic_write_bytes(path, second)
        _require_bytes(path, second)
        refused = _links_refused(path)
    finally:
        path.unlink(missing_ok=True)
    return f"hard links are refused ({refused}): renamed without replacing instead" if refused else "hard links work"


def remove_trials(folder: Path, name: str) -> None:
    """Remove what killed writers of the file `name` left in its folder, and killed calls of try_storage with it."""
    for path in folder.iterdir():
        if path.name.startswith(".") and path.name.lstrip(".").startswith(f"{name}."):
            path.unlink(missing_ok=True)


def _require_bytes(path: Path, data: bytes) -> None:
    if path.read_bytes() != data:
        raise EmbedkitError(f"{path}: the bytes read differ from those written; the file system is at fault")


def _links_refused(path: Path) -> str:
    """Why hard links are refused in a folder, tried with a file of it; "" if they work."""
    second = path.with_name(f"{path.name}-link")
    try:
        os.link(path, second)
    except OSError as error:  # any other number is that of a lost answer
        return os.strerror(error.errno or 0) if error.errno in REFUSED else ""
    finally:
        second.unlink(missing_ok=True)
    return ""


def _is_linked(temporary: Path, path: Path, is_refused: bool) -> bool:
    """Whether a link was made although link(2) failed: both names are one file, or it has two names (open(2)).

    The file is opened, because a network file system may remember an older count. `is_refused`: links may not exist
    here, so a count means nothing.
    """
    try:
        fd = os.open(temporary, os.O_RDONLY)
    except OSError:
        return False
    try:
        linked = os.fstat(fd)
        try:
            found = path.lstat()
        except FileNotFoundError:  # renamed by a process that looks whose it is
            return linked.st_nlink == 2 and not is_refused
        return (linked.st_dev, linked.st_ino) == (found.st_dev, found.st_ino)
    except OSError:
        return False
    finally:
        os.close(fd)


def _rename_once(temporary: Path, path: Path, refusal: OSError) -> bool:
    """Rename unless the new name exists. Returns whether this call did. `refusal`: how link(2) failed."""
    try:
        _rename_without_replacing(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        mount = mount_of(path.parent)
        kind = f"{mount.kind} at {mount.point}" if mount.kind else "of an unknown type"
        raise EmbedkitError(
            f"{path.parent}: its file system ({kind}) refuses hard links ({refusal.strerror}) and renaming without "
            f"replacing ({error.strerror}), and embedkit needs one of them to write {path.name} exactly once. Put the "
            "run on a different file system (--output-dir), or have it mounted with hard links"
        ) from error
    return True


def _rename_without_replacing(source: Path, target: Path) -> None:
    """renameat2(2) with RENAME_NOREPLACE. Raises OSError, with ENOSYS where the C library does not have it."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(target)) from None
    if rename(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))
