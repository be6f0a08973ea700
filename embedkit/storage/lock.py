"""One process at a time does a stage of a run: a file created with O_EXCL that names its holder.

Nothing rests on flock, which network file systems do not all keep. A holder on this host that is gone is
recognised, and an earlier start of this very job on another; any other holder elsewhere is believed.
"""

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from embedkit.errors import EmbedkitError
from embedkit.job import current_job
from embedkit.storage.atomic import remove_temporaries
from embedkit.storage.processes import process_start

PATIENCE_SECONDS = 5.0
"""Jobs of a killed queue take a moment to notice that it is gone."""


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lease. `started` is when the process began, since process ids are used again.

    `job` is the scheduler's id of its job and `restart` which start of that job it was; "" outside of one.
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
        if self.host == socket.gethostname():
            return process_start(self.pid) != self.started
        job, restart = _job()  # a job starts again once its earlier start is over
        return bool(job) and job == self.job and restart != self.restart


@contextlib.contextmanager
def run_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lease at `path` while in the block.

    Raises EmbedkitError naming the holder if another process has it and is not known to be gone.
    """
    me = Holder(socket.gethostname(), os.getpid(), process_start(os.getpid()), secrets.token_hex(8), *_job())
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
    """Who holds the lease at `path`; None if nobody does, or one who is known to have ended."""
    holder = _read(path)
    return None if holder is None or holder.is_gone else holder


def release_ended(path: Path, has_ended: Callable[[str], bool]) -> None:
    """Remove the lease at `path` if its holder was a job that has ended; `has_ended` is asked with the job's id."""
    holder = _read(path)
    if holder is not None and holder.job and has_ended(holder.job):
        _remove(path, holder)


def require_held(path: Path) -> None:
    """Raise EmbedkitError unless this process holds the lease at `path`: it may have been thought dead, and removed."""
    holder, pid = _read(path), os.getpid()
    if holder is None or (holder.host, holder.pid, holder.started) != (socket.gethostname(), pid, process_start(pid)):
        raise EmbedkitError(f"{path}: another process took over while this one stood still; nothing was changed")


def _job() -> tuple[str, str]:
    """Id of this process's job and which start of it; ("", "") outside of a job."""
    job = current_job()
    return job.id, str(job.restart) if job.id else ""


def _create(path: Path, holder: Holder) -> bool:
    """Create the lease whole or not at all; whether this call did."""
    temporary = path.with_name(f".{path.name}.{holder.token}.new.tmp")
    try:
        temporary.write_bytes(msgspec.json.encode(holder))
        os.link(temporary, path)
    except (FileExistsError, FileNotFoundError):  # a holder removes what others, killed or not, were about to link
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
    """Remove the lease if it is still that holder's; a fresh one that came in between is put back."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != holder:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _describe(path: Path, holder: Holder | None) -> str:
    job = f", job {holder.job}," if holder and holder.job else ""
    return f"process {holder.pid} on {holder.host}{job} is" if holder else f"somebody ({path} cannot be read) is"
