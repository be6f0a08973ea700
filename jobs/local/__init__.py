"""Running the stages on this machine, one process per GPU at a time."""

from jobs.local.progress import follow, watching
from jobs.local.queue import Job, LocalQueue, make_slots, visible_gpus
from jobs.local.stages import run_stages

__all__ = [
    "Job",
    "LocalQueue",
    "follow",
    "make_slots",
    "run_stages",
    "visible_gpus",
    "watching",
]
