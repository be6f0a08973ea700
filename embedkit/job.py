"""The job that this process belongs to: one small object, filled in by whoever starts the process.

embedkit reads no variable of a scheduler. `jobs` does, once per process, and calls `enter_job`.
"""

import socket
from dataclasses import dataclass, field


@dataclass(frozen=True)
class JobContext:
    """A job of a scheduler; the defaults describe a process outside of one.

    `name` is how people call it (under Slurm `123_17` for a task of an array), `id` the scheduler's own, `restart`
    counts its starts from 0, `cpus` is how many it may use, None if the scheduler sets no number.
    """

    name: str = "local"
    id: str = ""
    restart: int = 0
    node: str = field(default_factory=socket.gethostname)
    cpus: int | None = None


_current = JobContext()


def enter_job(job: JobContext) -> None:
    """Say which job this process belongs to, before it does any work."""
    global _current
    _current = job


def current_job() -> JobContext:
    """The job that this process belongs to."""
    return _current
