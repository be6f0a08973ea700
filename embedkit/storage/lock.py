"""The run lock: lets one process at a time work on a stage of a run. It is a file that names its holder.

The files keep their old name `*.lease`, so that different versions of embedkit respect each other's locks.
The file appears complete by link(2), which is atomic on network file systems; flock is not available on all of them.
A lock is taken over if its holder ended: a process of this host that is gone, or an earlier start of this same job on
another host. Any other holder on another host counts as alive.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from embedkit.errors import EmbedkitError
from embedkit.job import current_job
from embedkit.storage.atomic import remove_temporaries
from embedkit.storage.processes import process_host, process_start

PATIENCE_SECONDS = 5.0
"""How long to wait for a lock: jobs of a killed queue take a moment to notice that it ended."""


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock. `started` distinguishes the process from a later one with the same pid.

    `job` is the scheduler's id of the holder's job and `restart` counts that job's starts; both are "" outside a job.
    `token` is unique per holding.
    """

    host: str
    pid: int
    started: str
    token: str
    job: str = ""
    restart: str = ""

    @property
    def is_gone(self) -> bool:
        """Whether the holder is known to have ended."""
        if self.host == process_host():
            return process_start(self.pid) != self.started
        job, restart = _job()  # a scheduler restarts a job only after its earlier start ended
        return bool(job) and job == self.job and restart != self.restart


@contextlib.contextmanager
def run_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock at `path` while in the block. `what` completes the error's sentence: "preparing this run".

    Raises EmbedkitError naming the holder if another process holds the lock and may be alive.
    """
    me = Holder(process_host(), os.getpid(), process_start(os.getpid()), secrets.token_hex(8), *_job())
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _create(path, me):
        holder = _read(path)
        if holder is not None and holder.is_gone:
            _remove(path, holder)
        elif time.monotonic() > deadline:
            raise EmbedkitError(f"{_describe(path, holder)} {what}. If that process is gone, delete {path}")
        else:
            time.sleep(0.2)
    remove_temporaries(path.parent, f"{path.name}.*.new")
    try:
        yield
    finally:
        _remove(path, me)


def holder_of(path: Path) -> Holder | None:
    """Holder of the lock at `path`; None if nobody holds it, or if the holder is known to have ended."""
    holder = _read(path)
    return None if holder is None or holder.is_gone else holder


def release_ended(path: Path, has_ended: Callable[[str], bool]) -> None:
    """Remove the lock at `path` if its holder is a job that has ended; `has_ended` decides from the job's id."""
    holder = _read(path)
    if holder is not None and holder.job and has_ended(holder.job):
        _remove(path, holder)


def require_held(path: Path) -> None:
    """Raise EmbedkitError unless this process still holds the lock at `path`.

    Another process may have taken this one for dead, and removed its lock.
    """
    holder, pid = _read(path), os.getpid()
    if holder is None or (holder.host, holder.pid, holder.started) != (process_host(), pid, process_start(pid)):
        raise EmbedkitError(f"{path}: another process took over while this one was suspended; nothing was changed")


def _job() -> tuple[str, str]:
    """Id of this process's job and the number of its start; ("", "") outside a job."""
    job = current_job()
    return job.id, str(job.restart) if job.id else ""


def _create(path: Path, holder: Holder) -> bool:
    """Create a complete lock file unless one exists. Returns whether this call created it."""
    temporary = path.with_name(f".{path.name}.{holder.token}.new.tmp")
    try:
        temporary.write_bytes(msgspec.json.encode(holder))
        os.link(temporary, path)
    except (FileExistsError, FileNotFoundError):  # the new holder removes the temporary files of all others
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _read(path: Path) -> Holder | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _remove(path: Path, holder: Holder) -> None:
    """Remove the lock if `holder` still holds it. If it has a new holder by now, the file is put back."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != holder:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _describe(path: Path, holder: Holder | None) -> str:
    job = f", job {holder.job}," if holder and holder.job else ""
    return f"process {holder.pid} on {holder.host}{job} is" if holder else f"another process ({path} cannot be read) is"
