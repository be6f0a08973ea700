"""What became of each task of a run, and whether a running one is slow or hangs: pure functions of what was seen.

Files are the truth: what a manifest names is done, whatever Slurm says. squeue says what is queued or running; sacct,
the tasks' own notes and their logs say why something is neither. Any of these may be missing, or late.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from embedkit.check.status import ShardStatus
from jobs.records.attempts import NO_EXIT_RECORD, Start
from jobs.records.submissions import LiveTask, Submission, seconds_since_epoch
from jobs.slurm.accounting import JobRecord

State = Literal["done", "running", "pending", "failed", "cancelled", "unsettled", "unsubmitted"]
"""pending: queued, or not at work where there is no queue. unsettled: it left the queue a moment ago, and what became
of it does not show yet. unsubmitted: nothing was submitted that would do it."""
STATES: tuple[State, ...] = get_args(State)
Mark = Literal["", "slow", "hung"]
Queue = Literal["none", "answered", "silent"]

SETTLING_SECONDS = 15.0
"""A task that is requeued is for some five seconds in no queue, and sacct lags as long."""
SLOW = 0.6
"""A running shard is slow if it gets less than this share of what the median shard gets done of its prediction."""
SLOW_AMONG, SLOW_AFTER_SECONDS = 4, 30.0
"""So many shards a median takes to mean something, and a shard so long at work."""
HUNG_SECONDS, HUNG_CHUNKS = 300.0, 5.0
"""A running shard hangs if nothing of it got durable for so long, and for so many times a usual chunk."""
START_SECONDS, HUNG_STARTS = 600.0, 5.0
"""The same before its first chunk, counted from its start, and in usual starts of an engine."""
LONGEST = 300
"""Characters of a cause that are shown; the rest is in its log."""
AGAIN = ("REQUEUED", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
"""Ends after which Slurm may start a task again, some seconds later."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one job or array task is to do, and all that is known of it.

    `is_done` is what the files say, `problem` why something that is there does not count, `error` its log's telling
    line. `submission` is the newest that asked for it, `was_cancelled` whether embedkit took that back; `live` is it
    in the queue; `records`, from the accounting, and `starts`, its own notes, are of that submission, oldest first.
    `runs_here` is whether a process of `embedkit run` or the like is at it.
    """

    name: str
    is_done: bool = False
    problem: str | None = None
    error: str | None = None
    submission: Submission | None = None
    was_cancelled: bool = False
    live: LiveTask | None = None
    records: Sequence[JobRecord] = ()
    starts: Sequence[Start] = ()
    runs_here: bool = False


@dataclass(frozen=True)
class TaskState:
    """What became of a task, and why in one line if it is not well."""

    state: State
    why: str = ""


def classify(task: Task, now: float, queue: Queue) -> TaskState:
    """What became of a task, by all that is known of it.

    Args:
        task: the task.
        now: seconds since the epoch.
        queue: whether squeue answered; "none" for a run of which nothing was submitted.
    """
    if task.is_done:
        return TaskState("done")
    if task.live is not None:
        return TaskState("pending" if task.live.task.state == "PENDING" else "running")
    if task.runs_here:
        return TaskState("running")
    if task.submission is None:
        why = task.error or task.problem
        if why is not None:
            return TaskState("failed", why)
        return TaskState("pending" if queue == "none" else "unsubmitted")
    return _classify_gone(task, task.submission, now, queue == "answered")


def _classify_gone(task: Task, submission: Submission, now: float, queue_is_known: bool) -> TaskState:
    """A task that was submitted, is not done, and is neither queued nor running as far as Slurm says."""
    record = task.records[-1] if task.records else None
    start = task.starts[-1] if task.starts else None
    last = start.last if start is not None else None
    has_ended = record is not None and record.is_over and not _may_be_requeued(record, now)
    if last is not None and last.what == "finished":
        return TaskState("failed", task.problem or "it finished, and what it wrote is gone or damaged")
    if last is not None and last.what == "failed":
        return TaskState("failed", _one_line(last.why) or task.error or NO_EXIT_RECORD)
    if last is not None and last.what == "cancelled":
        return TaskState("cancelled", _cancelled(start))
    if record.state == "CANCELLED" if record is not None and has_ended else task.was_cancelled:
        return TaskState("cancelled", _cancelled(start))
    if not has_ended and not queue_is_known:
        return TaskState("unsettled", "Slurm does not say whether it is queued or running")
    if not has_ended and _is_young(submission, record, start, now):
        return TaskState("unsettled", "it left the queue just now; what became of it does not show yet")
    if last is not None:
        return TaskState("failed", f"told to stop ({_one_line(last.why)}), and not queued again")
    if start is None and task.error is None:
        began = record is not None and record.started is not None
        before = "it ended before its first word (killed from outside?)"
        never = "it left the queue without a start: cancelled, or what it waits for failed"
        return TaskState("failed", before if began else never)
    return TaskState("failed", task.error or NO_EXIT_RECORD)


def _cancelled(start: Start | None) -> str:
    return "cancelled before it started" if start is None else "cancelled while it ran"


def _may_be_requeued(record: JobRecord, now: float) -> bool:
    """Whether a start ended so lately that Slurm may be about to queue it again."""
    return record.state in AGAIN and record.ended is not None and now - record.ended < SETTLING_SECONDS


def _is_young(submission: Submission, record: JobRecord | None, start: Start | None, now: float) -> bool:
    """Whether something happened to a task so lately that Slurm may not have told yet."""
    times = [seconds_since_epoch(submission.at)]
    if start is not None:
        times.append(seconds_since_epoch((start.last or start.first).at))
    if record is not None:
        times += [time for time in (record.started, record.ended) if time is not None]
    return now - max(times) < SETTLING_SECONDS


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


@dataclass(frozen=True)
class Typical:
    """Medians over the `shards` shards of a run that have something durable; None where none has."""

    shards: int
    speed: float | None
    chunk_seconds: float | None
    start_seconds: float | None


def typical(shards: Sequence[ShardStatus]) -> Typical:
    """What is usual for a shard of this run."""
    begun = [shard for shard in shards if shard.chunks_done and shard.embed_seconds > 0]
    starts = [shard.start_seconds for shard in shards if shard.start_seconds is not None]
    return Typical(
        shards=len(begun),
        speed=_median([speed for shard in begun if (speed := speed_of(shard)) is not None]),
        chunk_seconds=_median([shard.embed_seconds / shard.chunks_done for shard in begun]),
        start_seconds=_median(starts),
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def speed_of(shard: ShardStatus) -> float | None:
    """Predicted seconds that a shard gets done in a second of embedding; None before its first chunk."""
    if not shard.tokens_done or shard.embed_seconds <= 0:
        return None
    return shard.predicted_seconds * shard.tokens_done / max(shard.tokens, 1) / shard.embed_seconds


def mark_of(shard: ShardStatus, quiet_seconds: float | None, usual: Typical, hung_after: float | None) -> Mark:
    """Whether a running shard hangs or is slow, against the median of its run.

    Args:
        shard: the shard, by its files.
        quiet_seconds: since something of it got durable, or since its start; None if that is unknown.
        usual: the medians.
        hung_after: seconds of quiet that it may take, for another limit than the medians give.
    """
    predicted_chunk = shard.predicted_seconds / max(shard.chunks, 1)
    if shard.chunks_done:
        patience = max(HUNG_SECONDS, HUNG_CHUNKS * max(usual.chunk_seconds or 0.0, predicted_chunk))
    else:
        patience = max(START_SECONDS, HUNG_STARTS * (usual.start_seconds or 0.0) + HUNG_CHUNKS * predicted_chunk)
    if quiet_seconds is not None and quiet_seconds > (patience if hung_after is None else hung_after):
        return "hung"
    speed = speed_of(shard)
    enough = usual.shards >= SLOW_AMONG and shard.embed_seconds >= SLOW_AFTER_SECONDS
    is_slow = enough and speed is not None and usual.speed is not None and speed < SLOW * usual.speed
    return "slow" if is_slow else ""
