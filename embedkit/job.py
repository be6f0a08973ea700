"""The job that this process belongs to: one small object, filled in by the caller.

embedkit reads no variables of a scheduler. `jobs` does, once per process, and calls `enter_job`.
"""

import socket
from dataclasses import dataclass, field


@dataclass(frozen=True)
class JobContext:
    """A job of a scheduler. The defaults describe a process outside a job.

    name: the name for people (under Slurm `123_17` for a task of an array); id: the scheduler's own id;
    restart: number of earlier starts of the job; node: host name; cpus: CPUs that the job may use, None if the
    scheduler sets no number; python: the Python that was named for its tasks, None if it is the one that submitted it;
    cluster: where `id` means this job, "" if not known.
    """

    name: str = "local"
    id: str = ""
    restart: int = 0
    node: str = field(default_factory=socket.gethostname)
    cpus: int | None = None
    python: str | None = None
    cluster: str = ""


_current = JobContext()


def enter_job(job: JobContext) -> None:
    """Set the job that this process belongs to. Call it before any work."""
    global _current
    _current = job


def current_job() -> JobContext:
    """The job that this process belongs to."""
    return _current
