"""The folders of tasks on a node: their names and users, and the removal of those that no living task uses.

A task's own folder is named after its process. A folder that tasks of one run share has one file per user, named after
the user's process. Tasks also hold locks, since a process in a different PID namespace (a container) cannot see them.
A folder is renamed before it is removed, so a task never finds a folder that is half removed.
"""

import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedkit.storage import boot_id, is_local, private_folder, process_namespaces, process_start

log = logging.getLogger("embedkit")

PROCESS = re.compile(r"(.+)\+(\d+)\+[0-9a-f]{12}")
"""The name of a process: host, pid, a hash of the boot and the namespaces in which that pid means it, and one of its
start."""
NODE_HOST = "EMBEDKIT_HOST"
"""The variable with the node's host name, set in jobs with a launcher: a container may have a host name of its own."""
NEW_SECONDS = 60.0
"""A folder may be so new that a task is about to use it, or to lock it. Locks show that on one host only."""


def folder_prefix() -> str:
    """The beginning of the names of this user's folders."""
    return f"embedkit-{os.getuid()}-"


def process_name(pid: int) -> str:
    """A unique name for a process of this host, also among past processes. A folder with this name belongs to it.

    In a container most tasks have the process id 1, and two of them may start at once: the name tells containers apart.
    """
    place, start = (
        hashlib.sha256(text.encode()).hexdigest()[:6]
        for text in (f"{boot_id()} {process_namespaces()}", process_start(pid))
    )
    return f"{_host()}+{pid}+{place}{start}"


def has_users(folder: Path) -> bool:
    """Whether a shared folder has a file of a living process. Hold its lock."""
    return any(_is_used(path, path.name) for path in folder.iterdir())


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder of this process, so that processes that cannot see this one keep it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system has locks; the name is enough on one host
            fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a shared folder; it is created if it does not exist, or if a task has just removed it."""
    while True:
        with suppress(FileNotFoundError):
            fd = os.open(private_folder(folder), os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_EX)  # node-local file systems support it
            if _is_at(folder, fd):
                break
            os.close(fd)
    try:
        yield
    finally:
        os.close(fd)


def set_aside(folder: Path) -> Path | None:
    """Rename a folder, so that this process can remove it without a lock; None if that fails. Hold its lock."""
    aside = folder.with_name(f"{folder_prefix()}removing-{secrets.token_hex(4)}-{process_name(os.getpid())}")
    try:
        return folder.rename(aside)
    except OSError:
        return None


def remove_abandoned(roots: Iterable[Path], keep: Path | None = None) -> None:
    """Remove this user's folders that no living task uses, of whichever run, and log each. Never raises OSError.

    Folders that processes of other hosts use are kept, since only their hosts can decide.

    Args:
        roots: the folders to look in.
        keep: a folder that this task is about to use.
    """
    for root in roots:
        with suppress(OSError):
            for name in sorted(os.listdir(root)):  # noqa: PTH208  (a folder for temporary files may have many)
                if name.startswith(folder_prefix()) and root / name != keep:
                    _remove_if_abandoned(root / name)


def _remove_if_abandoned(folder: Path) -> None:
    with suppress(OSError):
        aside = _claim(folder)
        if aside is not None:
            size = _bytes_in(aside)
            shutil.rmtree(aside, ignore_errors=True)
            left = " (not all of it could be removed)" if aside.exists() else ""
            log.info("removed %s, which no living task uses: %.1f MB%s", folder, size / 1e6, left)


def _claim(folder: Path) -> Path | None:
    """Rename a folder that has no living user; returns its new path, None if it stays."""
    kind = re.fullmatch(
        rf"(?P<kind>task-|new-|removing-[0-9a-f]{{8}}-)(?P<owner>{PROCESS.pattern})|[0-9a-f]{{12}}", _suffix(folder)
    )
    if kind is None:
        return None
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(fd).st_uid != os.getuid():
            return None
        has_locks = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its task is alive, or a task is starting or ending in it
            return None
        except OSError:
            if kind["owner"] is None:
                return None  # no locks here: a task may be starting in it
            has_locks = False
        if kind["owner"] is None:
            abandoned = _is_unused(folder, fd)
        else:
            abandoned = not _is_alive(kind["owner"], has_locks and is_local(folder))
        abandoned = abandoned and (kind["kind"] != "new-" or _is_old(fd))
        return set_aside(folder) if abandoned and _is_at(folder, fd) else None
    finally:
        os.close(fd)


def _is_unused(folder: Path, fd: int) -> bool:
    """Whether a shared folder has no living user, and is not so new that its first user is still to come."""
    if any(PROCESS.fullmatch(path.name) for path in folder.iterdir()):
        return not has_users(folder)
    return _is_old(fd)


def _is_old(fd: int) -> bool:
    return time.time() - os.fstat(fd).st_mtime > NEW_SECONDS


def _is_used(path: Path, name: str) -> bool:
    """Whether a path belongs to a living process: by its name, or because a process holds its lock."""
    if PROCESS.fullmatch(name) is None:
        return False
    if _is_alive(name, is_on_this_host=True):
        return True
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return _is_alive(name, is_on_this_host=False)
    finally:
        os.close(fd)
    return _is_alive(name, is_local(path))


def _is_alive(name: str, is_on_this_host: bool) -> bool:
    """Whether a name may be that of a live process. Other names count as dead.

    Args:
        name: the name.
        is_on_this_host: the lock of its file or folder is free, and no different host, and no earlier boot, can hold
            it. Otherwise only a pid of this boot and of these namespaces shows an end: hosts may share a name.
    """
    found = PROCESS.fullmatch(name)
    if found is None:
        return False
    pid, here = int(found[2]), process_name(int(found[2]))
    if found[1] != _host() or here == name:
        return True
    if here[-12:-6] != name[-12:-6]:
        return not is_on_this_host
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return not process_start(pid)  # it cannot be read; a start that can be read is that of a later process


def _host() -> str:
    return os.environ.get(NODE_HOST) or socket.gethostname()


def _is_at(folder: Path, fd: int) -> bool:
    """Whether an open folder is still the one at this path."""
    try:
        here, held = folder.lstat(), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (held.st_dev, held.st_ino)


def _suffix(folder: Path) -> str:
    return folder.name.removeprefix(folder_prefix())


def _bytes_in(folder: Path) -> int:
    """Bytes of the files below a folder, as far as they can be read."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(path) / name).lstat().st_size
    return total
