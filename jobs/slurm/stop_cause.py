"""Why Slurm sends SIGTERM to a job, in one question: SIGKILL follows soon."""

import re
from typing import Literal

from embedkit.errors import EmbedkitError
from jobs.slurm.client import parse_state, show_job
from jobs.slurm.job_times import parse_job_times

StopCause = Literal["cancelled", "requeued", "preempted", "unknown", "other"]
"""cancelled: it will not run again. requeued: Slurm starts it again by itself, after a preemption without grace,
`scontrol requeue` or `requeuehold`. preempted: it has its GraceTime left. unknown: Slurm does not say. other: its time
limit, or a signal of a person.
"""


def stop_cause(task: str, restart: int) -> StopCause:
    """Why a job or array task, named as in `123` or `123_17`, gets SIGTERM.

    Args:
        task: the name.
        restart: how often it had been requeued when this attempt began.
    """
    try:
        text = show_job(task)
    except EmbedkitError:
        return "unknown"
    state, reason = parse_state(text)
    restarts = re.search(r"\bRestarts=(\d+)", text)
    if restarts is not None and int(restarts[1]) > restart:
        return "requeued"
    if state in ("CANCELLED", "COMPLETING") and reason != "TimeLimit":
        return "cancelled"
    if parse_job_times(text).is_preempted:
        return "preempted"
    return "other" if state else "unknown"
