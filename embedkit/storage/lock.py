"""The run lock: lets one process at a time work on a stage of a run. It is a file that names its holder.

The files keep their old name `*.lease`, so that different versions of embedkit respect each other's locks.
The file appears complete in one step (exclusive.py); flock is not available on all network file systems. A lock is
taken over if its holder is known to have ended (holder.py).

To remove the lock of an ended holder, a process renames it and looks at what it got. If the lock had a new holder by
then, it is put back. Meanwhile that holder's record is in the renamed file, and who makes the lock in between finds it
there and lets go. So a living holder never loses its lock. If the process that renamed it was killed, the renamed file
stays, and is the lock.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from embedkit.errors import EmbedkitError, LockLost
from embedkit.job import current_job
from embedkit.storage.atomic import fsync_file, remove_temporaries
from embedkit.storage.exclusive import place_once
from embedkit.storage.holder import Holder, describe_holder
from embedkit.storage.named_errors import names_file

PATIENCE_SECONDS = 5.0
"""How long to wait for a lock: jobs of a killed queue take a moment to notice that it ended."""
RETRY_SECONDS = 0.2
NEW = ".new.tmp"
"""The ending of a lock that is being written."""
ASIDE = ".aside"
"""The ending of a lock that a process has renamed, to look whose it is."""

_held: dict[Path, Holder] = {}
"""The locks that this process holds."""


@contextlib.contextmanager
def run_lock(path: Path, what: str, folder: Path | None = None) -> Iterator[None]:
    """Hold the lock at `path` while in the block. `what` completes the error's sentence: "preparing this run".

    `folder` has the locks of the whole run, in it and in its subfolders; by default that of `path`. The error has the
    command that removes all locks of the same dead host.

    Raises EmbedkitError naming the holder if another process holds the lock and may be alive.
    """
    me = Holder.of_this_process(secrets.token_hex(8))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _create(path, me):
        holder = _read(path)
        if holder is not None and holder.is_gone(path):
            _remove(path, holder)
        elif time.monotonic() > deadline:
            found = _find(path)
            if found is None and path.parent.is_dir():
                # The new lock was removed as that of a killed process, while this one was suspended: write it again.
                deadline = time.monotonic() + PATIENCE_SECONDS
                continue
            raise EmbedkitError(_describe(*(found or (path, None)), what, folder or path.parent))
        else:
            time.sleep(RETRY_SECONDS)
    remove_temporaries(path.parent, f"{path.name}.*{NEW.removesuffix('.tmp')}")
    _held[path] = me
    try:
        yield
    finally:
        del _held[path]
        _release(path, me)


def holder_of(path: Path) -> Holder | None:
    """Holder of the lock at `path`; None if nobody holds it, or if the holder is known to have ended."""
    found = _find(path)
    return None if found is None else found[1]


def refuse_if_held(path: Path, what: str, folder: Path | None = None) -> None:
    """Raise EmbedkitError if the lock at `path` is held, or cannot be read. `what` and `folder` as in run_lock."""
    found = _find(path)
    if found is not None:
        raise EmbedkitError(_describe(*found, what, folder or path.parent))


def remove_ended_locks(folder: Path, beginning: str) -> None:
    """Remove locks of ended holders, and what killed processes left of locks. `beginning`: of the locks' names."""
    for path in sorted(folder.iterdir()):
        if not path.name.removeprefix(".").startswith(beginning):
            continue
        if path.suffix == ".lease" and (holder := _read(path)) is not None and holder.is_gone(path):
            _remove(path, holder)
        elif path.name.endswith(NEW):
            path.unlink(missing_ok=True)  # a living writer makes it again
        elif path.suffix == ASIDE and (holder := _read(path)) is not None and holder.is_gone(path):
            path.unlink(missing_ok=True)


def release_ended(path: Path, has_ended: Callable[[str], bool]) -> None:
    """Remove the lock at `path` if its holder is a job that has ended; `has_ended` decides from the job's id.

    An id of a different cluster is not asked about.
    """
    for file in _files(path):
        holder = _read(file)
        is_known = holder is not None and bool(holder.job) and holder.is_on_cluster(current_job().cluster)
        if holder is None or not is_known or not has_ended(holder.job):
            continue
        if file == path:
            _remove(path, holder)
        else:
            file.unlink(missing_ok=True)


def require_held(path: Path) -> None:
    """Raise LockLost unless this process still holds the lock at `path`.

    Another process may have taken this one for dead, and removed its lock.
    """
    me = _held.get(path)
    if me is None or me not in [_read(path), *map(_read, _asides(path))]:
        raise LockLost(f"{path}: another process took over while this one was suspended; nothing was changed")


def _create(path: Path, me: Holder) -> bool:
    """Create a complete lock file unless one exists. Returns whether this process holds the lock."""
    holder = _read(path)
    if holder is not None or not _write(path, me):
        return holder == me
    if not _aside_holders(path, me):
        return True
    _release(path, me)  # the lock was renamed and is about to be put back
    return False


def _write(path: Path, me: Holder) -> bool:
    temporary = path.with_name(f".{path.name}.{me.token}{NEW}")
    is_written = False
    try:
        with names_file(path):
            temporary.write_bytes(msgspec.json.encode(me))
        is_written = True
        fsync_file(temporary)
        return place_once(temporary, path)
    except FileNotFoundError:
        if not is_written and path.parent.is_dir():
            raise  # a folder in which no file can be made, as in /proc
        return False  # the new holder removes the temporary files of all others
    finally:
        temporary.unlink(missing_ok=True)


def _aside_holders(path: Path, me: Holder) -> list[Holder]:
    """Other holders that may be alive and whose lock a process has renamed. Removes what ended holders left."""
    found = []
    for aside in _asides(path):
        holder = _read(aside)
        if holder is None or holder == me:
            continue
        if holder.is_gone(aside):
            aside.unlink(missing_ok=True)
        else:
            found.append(holder)
    return found


def _asides(path: Path) -> list[Path]:
    """The files of the lock at `path` that processes have renamed."""
    beginning = f".{path.name}."
    try:
        return [one for one in path.parent.iterdir() if one.name.startswith(beginning) and one.name.endswith(ASIDE)]
    except FileNotFoundError:
        return []


def _files(path: Path) -> Iterator[Path]:
    """The files that may be the lock at `path`. It comes again at the end: a renamed lock may be put back meanwhile."""
    yield path
    yield from _asides(path)
    yield path


def _find(path: Path) -> tuple[Path, Holder | None] | None:
    """The file that is the lock at `path`, and its holder, None if it cannot be read. None if nobody holds the lock."""
    for file in _files(path):
        holder = _read(file)
        if (holder is not None and not holder.is_gone(file)) or (holder is None and file.exists()):
            return file, holder
    return None


def _describe(file: Path, holder: Holder | None, what: str, folder: Path) -> str:
    locks = (one for depth in ("*", "*/*") for one in folder.glob(depth) if one.suffix in (".lease", ASIDE))
    others = {one: its for one in sorted(locks) if (its := _read(one)) is not None}
    return describe_holder(file, holder, what, others)


def _read(path: Path) -> Holder | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _release(path: Path, me: Holder) -> None:
    """Give up the own lock, also if another process has renamed it to look whose it is."""
    _remove(path, me)
    for aside in _asides(path):
        if _read(aside) == me:
            aside.unlink(missing_ok=True)


def _remove(path: Path, holder: Holder) -> None:
    """Remove the lock if `holder` still holds it. If it has a new holder by now, the file is put back."""
    if _read(path) != holder:
        return
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{ASIDE}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        if not aside.exists():  # NFS may have renamed it and lost the answer
            return
    if _read(aside) == holder or _put_back(aside, path):
        aside.unlink(missing_ok=True)


def _put_back(aside: Path, path: Path) -> bool:
    """Give a lock its name again. Who has made the lock meanwhile finds this one, and lets go.

    Returns False if that fails. Then the renamed lock stays, and counts.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while not place_once(aside, path):
            if time.monotonic() > deadline:
                return False
            time.sleep(RETRY_SECONDS / 10)
    except FileNotFoundError:  # its holder has given it up
        return True
    except EmbedkitError:  # Linux may refuse to link a file of a different user
        return False
    return True
