"""The state of each task of a run, and why in one line: pure functions of what was observed.

Files decide: a shard with a manifest that counts is done, whatever Slurm reports. squeue tells which tasks are queued
or running. sacct, the attempts files and the logs explain why a task is neither. Any of these may be missing or late.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from jobs.monitor.logs import one_line
from jobs.monitor.reasons import is_held
from jobs.records import NO_EXIT_RECORD, Attempt, LiveTask, Submission, seconds_since_epoch
from jobs.slurm import JobRecord, Task, explain_exit

State = Literal[
    "done",
    "running",
    "completing",
    "suspended",
    "configuring",
    "pending",
    "held",
    "failed",
    "cancelled",
    "unknown",
    "unsubmitted",
]
"""completing: it has ended, and its node cleans up. suspended: paused by Slurm. configuring: its node starts up.
pending: queued, or waiting for its turn in an array task or in a run without Slurm. held: queued until a person
releases it. unknown: it left the queue a moment ago and its outcome is not known yet, or Slurm does not answer.
unsubmitted: no job that would do it was submitted, or its array task ended before its turn."""
STATES: tuple[State, ...] = get_args(State)
Queue = Literal["none", "answered", "silent"]
"""Whether squeue answered; "none" for a run of which nothing was submitted."""

RECENT_SECONDS = 15.0
"""A task that is being requeued is in no queue for some five seconds, and sacct lags by about as much."""
OF_SLURM: Mapping[str, State] = {
    "CONFIGURING": "configuring",
    "SUSPENDED": "suspended",
    "STOPPED": "suspended",
    "COMPLETING": "completing",
    "STAGE_OUT": "completing",
}
"""The state of a task in the queue by Slurm's, besides those without a node. Any other one counts as running."""
PREFLIGHT_FAILED = "the preflight failed"
PREPARE_FAILED = "prepare failed"
BLOCKED = (PREFLIGHT_FAILED, PREPARE_FAILED)
"""Causes of tasks that could do nothing, since a stage before them failed."""
REQUEUED = ("REQUEUED", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
"""End states after which Slurm may start a task again, some seconds later."""


@dataclass(frozen=True, kw_only=True)
class TaskObservations:
    """All that was observed of one job or array task.

    Attributes:
        name: as its log is named, `embed-00017`.
        is_done: whether its files say that it is done.
        problem: why a manifest that is there does not count.
        error: the error line of its log.
        submission: the newest submission that includes it.
        was_cancelled: whether `embedkit` cancelled it in that submission.
        live: its entry in the queue.
        records: its records in the accounting, of that submission, oldest first.
        attempts: its attempts, of that submission, oldest first.
        runs_here: whether a process outside Slurm works on it, such as `embedkit run`.
        blocked_by: why it could never start: PREFLIGHT_FAILED or PREPARE_FAILED; "" if no stage before it failed.
        has_launcher: whether its profile has a `launcher`.
        behind: shards of its array task that come before it, if their workers take shard after shard and it has not
            begun since the task's last start.
    """

    name: str
    is_done: bool = False
    problem: str | None = None
    error: str | None = None
    submission: Submission | None = None
    was_cancelled: bool = False
    live: LiveTask | None = None
    records: Sequence[JobRecord] = ()
    attempts: Sequence[Attempt] = ()
    runs_here: bool = False
    blocked_by: str = ""
    has_launcher: bool = False
    behind: Sequence[int] = ()


@dataclass(frozen=True)
class TaskState:
    """The state of a task; `why` explains a failure, a cancellation or an unknown state in one line."""

    state: State
    why: str = ""


def classify(task: TaskObservations, now: float, queue: Queue) -> TaskState:
    """Classify one task by all that was observed of it.

    Args:
        task: the task.
        now: seconds since the epoch.
        queue: whether squeue answered.
    """
    if task.is_done:
        return TaskState("done")
    if task.live is not None:
        state = live_state(task.live.task)
        return TaskState("pending", _turn(task.behind)) if task.behind and state == "running" else TaskState(state)
    if task.runs_here:
        return TaskState("running")
    if task.submission is None:
        why = task.error or task.problem
        if why is not None:
            return TaskState("failed", why)
        return TaskState("pending" if queue == "none" else "unsubmitted")
    return _classify_ended(task, task.submission, now, queue == "answered")


def live_state(task: Task) -> State:
    """The state of a task in the queue."""
    if is_held(task.state, task.reason):
        return "held"
    return "pending" if task.is_pending else OF_SLURM.get(task.state, "running")


def _classify_ended(task: TaskObservations, submission: Submission, now: float, queue_answered: bool) -> TaskState:
    """Classify a task that was submitted, is not done, and is not in the queue as far as Slurm reports."""
    record = task.records[-1] if task.records else None
    attempt = task.attempts[-1] if task.attempts else None
    exit_record = attempt.exit_record if attempt is not None else None
    has_ended = record is not None and record.is_over and not _may_be_requeued(record, now)

    # It was never started, since a stage before it failed; for merge, this is the cause of its own failure.
    if task.blocked_by and attempt is None:
        return TaskState("cancelled", task.blocked_by)
    if task.blocked_by and exit_record is not None and exit_record.what == "failed":
        return TaskState("failed", task.blocked_by)

    # Its own exit record knows best.
    if exit_record is not None and exit_record.what == "finished":
        return TaskState("failed", task.problem or "it finished, but its output is missing or damaged")
    if exit_record is not None and exit_record.what == "failed":
        return TaskState("failed", one_line(exit_record.why) or task.error or NO_EXIT_RECORD)
    if exit_record is not None and exit_record.what == "cancelled":
        return TaskState("cancelled", _cancelled(attempt))

    # Then the accounting, or embedkit's own record that it cancelled the task.
    was_cancelled = record.state == "CANCELLED" if record is not None and has_ended else task.was_cancelled
    if was_cancelled:
        return TaskState("cancelled", _cancelled(attempt))

    # It may be between two queues, or Slurm may not have reported its end yet.
    if not has_ended and not queue_answered:
        return TaskState("unknown", "Slurm does not say whether it is queued or running")
    if not has_ended and _is_recent(submission, record, attempt, now):
        return TaskState("unknown", "it left the queue just now; its outcome is not known yet")

    # The task had no time for it, or another shard ended it.
    if task.behind:
        return TaskState("unsubmitted", "its array task ended before its turn")

    # It has ended. The accounting or the log may explain how.
    if exit_record is not None:
        return TaskState("failed", f"stopped by {one_line(exit_record.why)}, and not queued again")
    return TaskState("failed", _why_it_ended(task, record, attempt))


def _why_it_ended(task: TaskObservations, record: JobRecord | None, attempt: Attempt | None) -> str:
    """Why a task ended that could not write it down."""
    ending = explain_exit(record.state, record.exit_code, task.has_launcher) if record is not None else None
    sentence = (
        ending.sentence.format(nodes=record.node or "the node") if ending is not None and record is not None else ""
    )
    if ending is not None and ending.is_certain:
        return sentence if task.error is None else f"{sentence}; {one_line(task.error)}"
    if task.error is not None:
        return one_line(task.error)
    if attempt is not None:
        return f"it ended without an exit record: {sentence}" if sentence else NO_EXIT_RECORD
    if record is not None and record.started is not None:
        code, _, number = record.exit_code.partition(":")
        by_itself = f"exit code {code}" if code not in ("", "0") and number == "0" else "killed from outside?"
        return f"it ended before embedkit started: {sentence or by_itself}"
    return "it left the queue without starting: cancelled, or a job that it waits for failed"


def _turn(behind: Sequence[int]) -> str:
    return f"its turn comes after shard{'s' * (len(behind) > 1)} {', '.join(map(str, behind))} of the same task"


def _cancelled(attempt: Attempt | None) -> str:
    return "cancelled before it started" if attempt is None else "cancelled while it ran"


def _may_be_requeued(record: JobRecord, now: float) -> bool:
    """Whether an attempt ended so recently that Slurm may be about to queue the task again."""
    return record.state in REQUEUED and record.ended is not None and now - record.ended < RECENT_SECONDS


def _is_recent(submission: Submission, record: JobRecord | None, attempt: Attempt | None, now: float) -> bool:
    """Whether something happened to a task so recently that Slurm may not have reported it yet."""
    times = [seconds_since_epoch(submission.at)]
    if attempt is not None:
        times.append(seconds_since_epoch((attempt.exit_record or attempt.started).at))
    if record is not None:
        times += [time for time in (record.started, record.ended) if time is not None]
    return now - max(times) < RECENT_SECONDS
