"""Which records of the accounting are of a run's own jobs: Slurm may use a job id again, as after a reset."""

from collections.abc import Iterable, Sequence

from jobs.records.submission import Submission, seconds_since_epoch
from jobs.slurm import JobRecord

CLOCKS_SECONDS = 900.0
"""Seconds by which the clocks of the login node and of Slurm may differ."""
REQUEUE_SECONDS = 86400.0
"""A requeued job is submitted anew when its earlier start ends; by hand it may be a day later."""


def own_records(records: Iterable[JobRecord], submissions: Iterable[Submission]) -> list[JobRecord]:
    """The records that fit the submission of their job by the time at which Slurm says they were submitted.

    A record from before the submission is of an earlier job with the same id, and so is one that follows neither the
    submission nor the end of an own start within a day. Records of jobs that were not submitted here are kept.
    """
    asked = {line.job: seconds_since_epoch(line.at) for line in submissions if line.job and line.what == "submitted"}
    tasks: dict[tuple[str, int | None], list[JobRecord]] = {}
    for record in records:
        tasks.setdefault((record.job, record.index), []).append(record)
    return [record for task in tasks.values() for record in _own(task, asked.get(task[0].job))]


def _own(records: Sequence[JobRecord], asked: float | None) -> list[JobRecord]:
    if asked is None:
        return list(records)
    found = []
    latest = asked
    for record in records:
        if record.submitted is None or asked - CLOCKS_SECONDS <= record.submitted <= latest + REQUEUE_SECONDS:
            found.append(record)
            latest = max(latest, *(time for time in (record.submitted, record.ended) if time is not None), latest)
    return found
