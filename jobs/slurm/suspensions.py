"""When Slurm last suspended or resumed jobs: the time in between does not count as time in which they could work."""

import re
from collections.abc import Iterable

from embedkit.errors import EmbedkitError
from jobs.slurm.client import run_slurm, seconds_of


def suspensions(tasks: Iterable[str]) -> dict[str, float]:
    """Seconds since the epoch at which each task was last suspended or resumed; without those that never were.

    Args:
        tasks: jobs or array tasks, `123` or `123_17`. Each is one call of scontrol.
    """
    found = {}
    for task in tasks:
        try:
            at = parse_suspension(run_slurm("scontrol", "show", "job", "-o", task))
        except EmbedkitError:
            continue
        if at is not None:
            found[task] = at
    return found


def parse_suspension(text: str) -> float | None:
    """The time in `scontrol show job -o`, seconds since the epoch; None if the job was never suspended."""
    found = re.search(r"\bSuspendTime=(\S+)", text)
    return None if found is None else seconds_of(found[1])
