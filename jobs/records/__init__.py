"""The records that jobs keep in a run: submissions, profiles, attempts, names of logs, groups of shards."""

from jobs.records.attempts import (
    MAX_ATTEMPTS_WITHOUT_PROGRESS,
    NO_EXIT_RECORD,
    NO_PROGRESS,
    NODE_FAULTS,
    Attempt,
    AttemptEvent,
    Attempts,
    EventKind,
    failed_preflight,
)
from jobs.records.groups import group_of
from jobs.records.log_names import ATTEMPTS_SUFFIX, GROUP_LOG, Place, log_name, place_of
from jobs.records.recorded_profiles import changed_note, record_profile, recorded_profile
from jobs.records.submissions import (
    COMMENT_PREFIX,
    LiveTask,
    Submission,
    Submissions,
    new_submission,
    now,
    seconds_since_epoch,
)

__all__ = [
    "ATTEMPTS_SUFFIX",
    "COMMENT_PREFIX",
    "GROUP_LOG",
    "MAX_ATTEMPTS_WITHOUT_PROGRESS",
    "NODE_FAULTS",
    "NO_EXIT_RECORD",
    "NO_PROGRESS",
    "Attempt",
    "AttemptEvent",
    "Attempts",
    "EventKind",
    "LiveTask",
    "Place",
    "Submission",
    "Submissions",
    "changed_note",
    "failed_preflight",
    "group_of",
    "log_name",
    "new_submission",
    "now",
    "place_of",
    "record_profile",
    "recorded_profile",
    "seconds_since_epoch",
]
