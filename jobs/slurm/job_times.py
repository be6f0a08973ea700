"""When a job started, when it must end, and whether it is being preempted, in one question to Slurm."""

import re
from dataclasses import dataclass

from jobs.slurm.client import seconds_of, show_job


@dataclass(frozen=True)
class JobTimes:
    """Times of a job by the controller's clock, in seconds since the epoch; None if there is none, or it is unknown.

    `ends` is the end of its time limit, or of the time that a preemption leaves it (GraceTime).
    """

    started: float | None = None
    ends: float | None = None
    is_preempted: bool = False

    @property
    def seconds(self) -> float | None:
        """How long the job may run in all."""
        return None if self.started is None or self.ends is None else self.ends - self.started


def job_times(task: str) -> JobTimes:
    """Times of a running job or array task, named as in `123` or `123_17`. Raises EmbedkitError without an answer."""
    return parse_job_times(show_job(task))


def parse_job_times(text: str) -> JobTimes:
    """Read `scontrol show job -o` of one job. A limit of a year stands for none: so Slurm prints UNLIMITED."""
    fields = dict(re.findall(r"(?:^| )(\w+)=(\S*)", text))
    started, ends, preempted = (seconds_of(fields.get(f"{name}Time", "")) for name in ("Start", "End", "Preempt"))
    is_preempted = preempted is not None and started is not None and preempted >= started  # not an earlier start
    has_limit = fields.get("TimeLimit") not in ("UNLIMITED", "365-00:00:00")
    return JobTimes(started, ends if has_limit or is_preempted else None, is_preempted)
