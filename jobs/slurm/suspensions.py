"""When Slurm last suspended or resumed jobs: the time in between does not count as time in which they could work."""

import re
from collections.abc import Collection

from embedkit.errors import EmbedkitError
from jobs.slurm.client import job_id, run_slurm, seconds_of

MOST_CALLS = 8
"""Jobs that are asked about one by one; for more, one call shows all jobs of the cluster."""


def suspensions(tasks: Collection[str]) -> dict[str, float]:
    """Seconds since the epoch at which each task was last suspended or resumed; without those that never were.

    Args:
        tasks: jobs or array tasks, `123` or `123_17`. All tasks of an array take one call of scontrol.
    """
    jobs = sorted({job_id(task) for task in tasks})
    calls: list[tuple[str, ...]] = [(job,) for job in jobs] if len(jobs) <= MOST_CALLS else [()]
    found: dict[str, float] = {}
    for call in calls:
        try:
            found |= parse_suspensions(run_slurm("scontrol", "show", "job", "-o", *call))
        except EmbedkitError:
            continue
    return {task: found[task] for task in tasks if task in found}


def parse_suspensions(text: str) -> dict[str, float]:
    """The times in `scontrol show job -o`, seconds since the epoch, by task; without jobs never suspended."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        fields = dict(re.findall(r"(?<!\S)(JobId|ArrayJobId|ArrayTaskId|SuspendTime)=(\S+)", line))
        at = seconds_of(fields.get("SuspendTime", ""))
        job = fields.get("ArrayJobId") or fields.get("JobId")
        if at is None or job is None:
            continue
        index = fields.get("ArrayTaskId", "")
        found[f"{job}_{index}" if index.isdecimal() else job] = at
    return found
