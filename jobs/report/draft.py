"""An attempt while it is put together from its observations."""

from dataclasses import dataclass

from jobs.records import Attempt, AttemptEvent, Place, Submission, seconds_since_epoch
from jobs.report.observations import AttemptFiles
from jobs.report.schema import Outcome
from jobs.slurm import JobRecord


@dataclass(kw_only=True)
class Draft:
    """All that is known so far of one attempt. Times are seconds since the epoch.

    Attributes:
        attempt: its events in the attempts file.
        files: what it left in the shard's folder.
        record: its record in the accounting.
        submission: the submission of its job.
        shared_by: how many shards shared its array task.
        at_once: how many workers its array task had.
        is_later: whether its array task embedded other shards before it, in turn.
        started: when it started.
        ended: when it ended, or now if it runs.
        ended_at_least: whether it ended at an unknown time after `ended`.
        outcome: how it ended.
    """

    place: Place
    job: str
    restart: int | None
    attempt: Attempt | None = None
    files: AttemptFiles | None = None
    record: JobRecord | None = None
    submission: Submission | None = None
    shared_by: int = 1
    at_once: int = 1
    is_later: bool = False
    started: float | None = None
    ended: float | None = None
    ended_at_least: bool = False
    outcome: Outcome = "unknown"

    @property
    def is_in_turn(self) -> bool:
        """Whether the workers of its array task embed shard after shard."""
        return self.submission is not None and bool(self.submission.in_turn)

    @property
    def exit_record(self) -> AttemptEvent | None:
        """The event of its end, if it wrote one."""
        return self.attempt.exit_record if self.attempt is not None else None

    @property
    def first_event(self) -> float | None:
        """When it first wrote anything, by its own clock."""
        if self.attempt is not None:
            return seconds_since_epoch(self.attempt.started.at)
        return self.files.started if self.files is not None else None
