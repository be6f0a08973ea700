"""The records that jobs keep in a run: submissions, profiles, attempts, names of logs, groups of shards."""

from jobs.records.attempts import (
    MAX_ATTEMPTS_WITHOUT_PROGRESS,
    NO_EXIT_RECORD,
    NO_PROGRESS,
    NODE_FAULTS,
    UNCOUNTED,
    Attempt,
    AttemptEvent,
    Attempts,
    EventKind,
    failed_preflight,
)
from jobs.records.clocks import clock_errors, clock_notes, with_right_times
from jobs.records.copies import copies_note
from jobs.records.find_line import LineFinder
from jobs.records.groups import group_of
from jobs.records.live import LiveReader, LiveTasks, adopt_found, unended_jobs
from jobs.records.log_names import ATTEMPTS_SUFFIX, GROUP_LOG, Place, log_name, place_of
from jobs.records.own_records import CLOCKS_SECONDS, own_records
from jobs.records.recorded_profiles import changed_note, launcher_stages, record_profile, recorded_profile
from jobs.records.stage_times import read_times, record_times
from jobs.records.submission import COMMENT_PREFIX, Submission, new_submission, now, seconds_since_epoch
from jobs.records.submissions import LiveTask, Submissions

__all__ = [
    "ATTEMPTS_SUFFIX",
    "CLOCKS_SECONDS",
    "COMMENT_PREFIX",
    "GROUP_LOG",
    "MAX_ATTEMPTS_WITHOUT_PROGRESS",
    "NODE_FAULTS",
    "NO_EXIT_RECORD",
    "NO_PROGRESS",
    "UNCOUNTED",
    "Attempt",
    "AttemptEvent",
    "Attempts",
    "EventKind",
    "LineFinder",
    "LiveReader",
    "LiveTask",
    "LiveTasks",
    "Place",
    "Submission",
    "Submissions",
    "adopt_found",
    "changed_note",
    "clock_errors",
    "clock_notes",
    "copies_note",
    "failed_preflight",
    "group_of",
    "launcher_stages",
    "log_name",
    "new_submission",
    "now",
    "own_records",
    "place_of",
    "read_times",
    "record_profile",
    "record_times",
    "recorded_profile",
    "seconds_since_epoch",
    "unended_jobs",
    "with_right_times",
]
