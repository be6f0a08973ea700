"""The records that jobs keep in a run: submissions, attempts, names of logs, groups of shards."""

from jobs.records.attempts import LIMIT, NO_EXIT_RECORD, Attempt, AttemptEvent, Attempts, EventKind, failed_preflight
from jobs.records.groups import group_of
from jobs.records.log_names import GROUP_LOG, log_name
from jobs.records.submissions import (
    COMMENT,
    LiveTask,
    Submission,
    Submissions,
    new_submission,
    now,
    seconds_since_epoch,
)

__all__ = [
    "COMMENT",
    "GROUP_LOG",
    "LIMIT",
    "NO_EXIT_RECORD",
    "Attempt",
    "AttemptEvent",
    "Attempts",
    "EventKind",
    "LiveTask",
    "Submission",
    "Submissions",
    "failed_preflight",
    "group_of",
    "log_name",
    "new_submission",
    "now",
    "seconds_since_epoch",
]
