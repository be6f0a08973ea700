"""Nodes whose clock is wrong, found by what cannot be: a start before its submission, an end after its end in Slurm.

An attempt's times are those of its node. Slurm's times and those of the login node are taken as right. A correction is
at least as large as the contradiction, so corrected times never contradict Slurm.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from jobs.records.attempts import Attempt, AttemptEvent
from jobs.records.submission import Submission, seconds_since_epoch
from jobs.slurm import JobRecord, job_id

TOLERANCE_SECONDS = 20.0
"""A difference up to this needs no correction: times are whole seconds, and records are written a moment later."""
LARGEST_SECONDS = 86400.0
KILL_SECONDS = 300.0
"""How long a task may run on after Slurm's time of its end, if it was stopped (KillWait, GraceTime)."""


def clock_errors(
    attempts: Iterable[Attempt], submissions: Iterable[Submission], records: Iterable[JobRecord], now: float
) -> dict[str, float]:
    """Seconds by which the clock of each node is ahead (negative: behind); only nodes whose clock is wrong.

    Args:
        attempts: attempts at jobs on the cluster.
        submissions: the run's submissions.
        records: the run's own records in the accounting.
        now: seconds since the epoch.
    """
    asked = {line.job: seconds_since_epoch(line.at) for line in submissions if line.job and line.what == "submitted"}
    starts: dict[str, list[JobRecord]] = {}
    for record in records:
        if record.started is not None:
            starts.setdefault(record.name, []).append(record)
    attempts = list(attempts)
    restarts: dict[str, int] = {}
    for attempt in attempts:
        restarts[attempt.job] = max(restarts.get(attempt.job, 0), attempt.restart)
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    for attempt in attempts:
        own = starts.get(attempt.job, [])
        # Slurm has a record of every start, unless some were purged.
        record_of_it = own[attempt.restart] if len(own) == restarts[attempt.job] + 1 else None
        begun = record_of_it.started if record_of_it is not None else asked.get(job_id(attempt.job))
        over = now if record_of_it is None else _latest_end(record_of_it, now)
        last = seconds_since_epoch((attempt.exit_record or attempt.started).at)
        least[attempt.node] = max(last - over, least.get(attempt.node, last - over))
        if begun is not None:
            late = seconds_since_epoch(attempt.started.at) - begun
            most[attempt.node] = min(late, most.get(attempt.node, late))
    return {node: error for node in least if (error := _error(least[node], most.get(node))) is not None}


def _latest_end(record: JobRecord, now: float) -> float:
    """When a start had ended at the latest. Slurm writes the time of a cancellation, and waits for processes to end."""
    if record.ended is None:
        return now
    return record.ended if record.state in ("COMPLETED", "FAILED") else record.ended + KILL_SECONDS


def _error(least: float, most: float | None) -> float | None:
    """The error of a clock that is at least `least` seconds ahead and at most `most`; None if it may be right."""
    if most is not None and least > most + TOLERANCE_SECONDS:
        return None  # not one error: the clock was set in between, or records were matched wrongly
    if TOLERANCE_SECONDS < least < LARGEST_SECONDS:
        return least
    if most is not None and -LARGEST_SECONDS < most < -TOLERANCE_SECONDS:
        return most
    return None


def with_right_times(attempts: Sequence[Attempt], errors: Mapping[str, float]) -> list[Attempt]:
    """The same attempts, with the times of nodes whose clock is wrong corrected."""
    return [
        Attempt(
            _shifted(attempt.started, errors[attempt.node]),
            None if attempt.exit_record is None else _shifted(attempt.exit_record, errors[attempt.node]),
        )
        if attempt.node in errors
        else attempt
        for attempt in attempts
    ]


def _shifted(event: AttemptEvent, error: float) -> AttemptEvent:
    at = datetime.fromtimestamp(seconds_since_epoch(event.at) - error, UTC)
    return msgspec.structs.replace(event, at=at.isoformat(timespec="seconds"))


def clock_notes(errors: Mapping[str, float]) -> list[str]:
    """One line per node whose clock is wrong, for people."""
    return [
        f"the clock of {node} is {_minutes(abs(error))} {'ahead' if error > 0 else 'behind'}; its times are corrected"
        for node, error in sorted(errors.items())
    ]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
