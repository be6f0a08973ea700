"""A run at one moment, for the person who looks after it: its files, and what Slurm says of what they do not have.

`make_overview` is a pure function of what was seen; `jobs/monitor/collect.py` sees.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec

from embedkit.check.status import ShardStatus, Status
from embedkit.run import RunFolder
from jobs.monitor.classify import (
    STATES,
    Mark,
    Queue,
    State,
    Task,
    TaskState,
    Typical,
    classify,
    mark_of,
    speed_of,
    typical,
)
from jobs.monitor.prediction import seconds_until_done
from jobs.profiles.schema import Stage
from jobs.records.attempts import Start
from jobs.records.log_names import log_name
from jobs.records.submissions import LiveTask, Submission, seconds_since_epoch
from jobs.slurm.accounting import JobRecord
from jobs.slurm.client import array_spec, job_id


class ShardView(msgspec.Struct, frozen=True, kw_only=True):
    """One shard. `slurm_state` is Slurm's own word, "" if it says nothing; `reason` why it is queued.

    `why` is why it failed, in one line; `speed` what it gets done of the plan's prediction a second (1: as predicted),
    None before its first chunk; `seconds_left` None if that cannot be told; `quiet_seconds` since something of it got
    durable, or since its start, None if it does not run. `gpu_hours` are those of all its starts, None if unknown.
    """

    shard: int
    state: State
    mark: Mark
    slurm_state: str
    reason: str
    exit_code: str
    node: str
    job: str
    starts: int
    rows_done: int
    rows: int
    tokens_done: int
    tokens: int
    tokens_per_second: float
    speed: float | None
    seconds_left: float | None
    quiet_seconds: float | None
    gpu_hours: float | None
    why: str
    log: str


class StageView(msgspec.Struct, frozen=True, kw_only=True):
    """One stage: its tasks by state, and what there is to say of one that is not an array."""

    stage: Stage
    tasks: dict[State, int]
    slurm_state: str
    reason: str
    exit_code: str
    node: str
    job: str
    why: str
    log: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run. `notes` are what could not be asked, and what that means; `accounting` whether sacct answered."""

    run: str
    stage: Literal["prepare", "embed", "merge", "done"]
    at: str
    is_alive: bool
    stages: tuple[StageView, ...]
    shards: tuple[ShardView, ...]
    rows_prepared: int
    rows_chosen: int | None
    rows_kept: int | None
    dropped: dict[str, int]
    tokens_done: int
    tokens: int | None
    tokens_per_second: float
    median_speed: float | None
    seconds_left: float | None
    gpu_hours: float | None
    accounting: bool | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of a run.

    `queue` is None where Slurm was not asked or did not answer, `records` where there is no accounting. `starts` and
    `errors`, a log's telling line, are by the names of logs (`embed-00017`); `logs` are those that are there. `here`
    names the tasks that processes of `embedkit run` and the like are at. `start_seconds` is what preflight's start of
    the engine took, None if there was none.
    """

    run: RunFolder
    status: Status
    now: float
    submissions: Sequence[Submission] = ()
    queue: Sequence[LiveTask] | None = None
    records: Sequence[JobRecord] | None = None
    starts: Mapping[str, Sequence[Start]]
    errors: Mapping[str, str]
    logs: frozenset[str] = frozenset()
    here: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    hung_after: float | None = None
    start_seconds: float | None = None

    @property
    def answer(self) -> Queue:
        """Whether squeue answered."""
        return "none" if not self.submissions else "answered" if self.queue is not None else "silent"


def make_overview(seen: Seen) -> Overview:
    """Join what was seen."""
    known, status = Known(seen), seen.status
    usual = typical(status.shards)
    shards = tuple(_shard_view(seen, known, shard, usual) for shard in status.shards)
    running = [shard for shard in shards if shard.state == "running" and shard.mark != "hung"]
    hours = [shard.gpu_hours for shard in shards if shard.gpu_hours is not None]
    live = [task for task in seen.queue or () if not task.task.never_starts]
    return Overview(
        run=status.run,
        stage=status.stage,
        at=datetime.fromtimestamp(seen.now, UTC).isoformat(timespec="seconds"),
        is_alive=bool(live or seen.here) or (bool(seen.submissions) and seen.queue is None and status.stage != "done"),
        stages=tuple(_stage_views(seen, known, shards)),
        shards=shards,
        rows_prepared=status.rows_prepared,
        rows_chosen=status.rows_chosen,
        rows_kept=status.rows_kept,
        dropped=status.dropped,
        tokens_done=status.tokens_done,
        tokens=status.tokens,
        tokens_per_second=sum(shard.tokens_per_second for shard in running),
        median_speed=usual.speed,
        seconds_left=_seconds_left(shards, status.shards, usual, seen.start_seconds, known.parallel),
        gpu_hours=sum(hours) if hours else None,
        accounting=None if not seen.submissions else seen.records is not None,
        notes=(*seen.notes, *_lost_nodes(seen)),
    )


def _lost_nodes(seen: Seen) -> list[str]:
    """Which nodes were lost under tasks that Slurm has queued or started again since."""
    live = {(task.task.job, task.task.index): task.shards for task in seen.queue or ()}
    lost: dict[str, set[int]] = {}
    for record in seen.records or ():
        if record.state == "NODE_FAIL" and (record.job, record.index) in live:
            lost.setdefault(record.node, set()).update(live[record.job, record.index])
    return [
        f"node {node} was lost; Slurm starts its tasks again by itself{_of_shards(shards)}"
        for node, shards in sorted(lost.items())
    ]


def _of_shards(shards: Collection[int]) -> str:
    return f": shards {array_spec(sorted(shards))}" if shards else ""


class Known:
    """What was seen, by task."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._asked: dict[str, Submission] = {}
        self._by_job: dict[str, Submission] = {}
        self._index_of: dict[str, dict[int, int]] = {}
        cancelled = [line for line in seen.submissions if line.what == "cancelled"]
        self._cancelled = {(line.job, name) for line in cancelled for name in names_of(line)}
        self._records: dict[tuple[str, int | None], list[JobRecord]] = {}
        self._live: dict[str, LiveTask] = {}
        self.parallel = 1
        for line in seen.submissions:
            if line.what == "submitted" and line.job is not None:
                self._by_job[line.job] = line
                self._index_of[line.job] = line.index_of
                self._asked |= dict.fromkeys(names_of(line), line)
                if line.stage == "embed":
                    self.parallel = int(line.array.partition("%")[2] or 1) * line.per_job
        for record in seen.records or ():
            self._records.setdefault((record.job, record.index), []).append(record)
        for live in seen.queue or ():
            for name in [log_name(live.stage, shard) for shard in live.shards or (None,)]:
                if name not in self._live or live.task.state != "PENDING":
                    self._live[name] = live

    def names(self, stage: Stage) -> list[str]:
        """The tasks of a stage that were ever asked for."""
        return sorted(name for name, line in self._asked.items() if line.stage == stage)

    def task(self, stage: Stage, shard: int | None, is_done: bool, problem: str | None = None) -> Task:
        """All that is known of one task."""
        name = log_name(stage, shard)
        submission = self._asked.get(name)
        job = submission.job if submission is not None and submission.job is not None else ""
        return Task(
            name=name,
            is_done=is_done,
            problem=problem,
            error=self._seen.errors.get(name),
            submission=submission,
            was_cancelled=(job, name) in self._cancelled,
            live=self._live.get(name),
            records=self._records_of(job, shard),
            starts=[start for start in self._seen.starts.get(name, ()) if job_id(start.first.job) == job],
            runs_here=name in self._seen.here,
        )

    def _records_of(self, job: str, shard: int | None) -> list[JobRecord]:
        """What the accounting has of the task of a job that does a shard."""
        index = None if shard is None else self._index_of.get(job, {}).get(shard)
        return self._records.get((job, index), [])

    def gpu_hours(self, name: str, shard: int, last_sign: float | None, runs: bool) -> float | None:
        """GPU hours of all starts of an embed task; None if it has none, or they had no GPUs.

        A start without a last word ended when the accounting says, else no earlier than its last sign of life.
        """
        hours, gpus = 0.0, 0
        starts = self._seen.starts.get(name, ())
        counts: Counter[str] = Counter()
        for number, start in enumerate(starts):
            job = job_id(start.first.job)
            line = self._by_job.get(job)
            records = self._records_of(job, shard)
            record = records[counts[job]] if counts[job] < len(records) else None
            counts[job] += 1
            count = line.gpus // line.per_job if line is not None else 0
            began, newest = seconds_since_epoch(start.first.at), number == len(starts) - 1
            if start.last is not None:
                ended = seconds_since_epoch(start.last.at)
            elif newest and runs:
                ended = self._seen.now
            else:
                # The accounting has whole seconds, cut off: a start may seem to end before it began.
                told = record.ended if record is not None else None
                ended = max(began, told or 0.0, (last_sign if newest else None) or 0.0)
            gpus += count
            hours += count * max(ended - began, 0.0) / 3600
        return hours if gpus else None


def names_of(line: Submission) -> list[str]:
    """The names of the tasks that a submission asked for, as their logs have them."""
    return [log_name(line.stage, shard) for shard in line.index_of] if line.array else [log_name(line.stage, None)]


def _shard_view(seen: Seen, known: Known, shard: ShardStatus, usual: Typical) -> ShardView:
    task = known.task("embed", shard.shard, shard.state == "done", shard.problem)
    verdict = classify(task, seen.now, seen.answer)
    runs = verdict.state == "running"
    quiet = _quiet_seconds(seen.now, task, shard) if runs else None
    mark: Mark = mark_of(shard, quiet, usual, seen.hung_after) if runs else ""
    speed = speed_of(shard)
    about = _about(task, verdict)
    return ShardView(
        shard=shard.shard,
        state=verdict.state,
        mark=mark,
        slurm_state=about.slurm_state,
        reason=about.reason,
        exit_code=about.exit_code,
        node=about.node,
        job=about.job,
        starts=len(seen.starts.get(task.name, ())),
        rows_done=shard.rows_done,
        rows=shard.rows,
        tokens_done=shard.tokens_done,
        tokens=shard.tokens,
        tokens_per_second=shard.tokens_per_second,
        speed=speed,
        seconds_left=_left(shard, usual) if runs and mark != "hung" else None,
        quiet_seconds=quiet,
        gpu_hours=known.gpu_hours(task.name, shard.shard, shard.changed, runs),
        why=verdict.why,
        log=str(seen.run.logs / f"{task.name}.log") if task.name in seen.logs else "",
    )


@dataclass(frozen=True)
class About:
    """Slurm's word on a task, and where it is or was."""

    slurm_state: str
    reason: str
    exit_code: str
    node: str
    job: str


def _about(task: Task, verdict: TaskState) -> About:
    record = task.records[-1] if task.records else None
    start = task.starts[-1] if task.starts else None
    live = task.live.task if task.live is not None else None
    job = live.name if live else start.first.job if start else record.name if record else ""
    node = (live.node if live else "") or (start.first.node if start else "") or (record.node if record else "")
    is_known = live is None and record is not None
    return About(
        slurm_state=live.state if live else record.state if record else "",
        reason=live.reason if live is not None and live.reason != "None" else "",
        exit_code=record.exit_code if record is not None and is_known and verdict.state == "failed" else "",
        node="" if live is not None and live.state == "PENDING" else node,
        job=job or (task.submission.job if task.submission is not None else None) or "",
    )


def _quiet_seconds(now: float, task: Task, shard: ShardStatus) -> float | None:
    """Since something of a running shard got durable, or since its start."""
    signs = [shard.changed] if shard.changed is not None else []
    if task.starts:
        signs.append(seconds_since_epoch(task.starts[-1].first.at))
    elif task.live is not None and task.live.task.start is not None:
        signs.append(task.live.task.start)
    return max(now - max(signs), 0.0) if signs else None


def _left(shard: ShardStatus, usual: Typical) -> float | None:
    """Seconds until a shard is done at its speed, or at the median's before its first chunk."""
    speed = speed_of(shard) or usual.speed
    share = 1 - shard.tokens_done / max(shard.tokens, 1)
    return None if not speed else shard.predicted_seconds * share / speed


def _seconds_left(
    views: Sequence[ShardView],
    shards: Sequence[ShardStatus],
    usual: Typical,
    first_start: float | None,
    parallel: int,
) -> float | None:
    """Until all shards that are queued or running are done, so many at once.

    A shard that waits has its engine's start before it, and one that runs without a chunk the rest of it: the median's,
    or preflight's (the longest: it compiles) until a shard is done.
    """
    wanted = [(view, _left(shard, usual)) for view, shard in zip(views, shards, strict=True)]
    start = usual.start_seconds if usual.start_seconds is not None else first_start or 0.0
    running = [
        left if left is None or view.tokens_done else left + max(start - (view.quiet_seconds or 0.0), 0.0)
        for view, left in wanted
        if view.state == "running"
    ]
    waiting = [None if left is None else left + start for view, left in wanted if view.state == "pending"]
    known_running = [left for left in running if left is not None]
    known_waiting = [left for left in waiting if left is not None]
    if not running or len(known_running) < len(running) or len(known_waiting) < len(waiting):
        return None
    return seconds_until_done(known_running, known_waiting, max(len(running), parallel))


def _stage_views(seen: Seen, known: Known, shards: Sequence[ShardView]) -> list[StageView]:
    """prepare, preflight if there is or was one, embed, merge, and analyze if it was asked for or runs here."""
    status = seen.status
    views = [_single(seen, known, "prepare", status.stage != "prepare")]
    if seen.run.preflight.exists() or known.names("preflight"):
        views.append(_single(seen, known, "preflight", seen.run.preflight.exists()))
    views.append(_embed_view(seen, known, shards))
    views.append(_single(seen, known, "merge", status.stage == "done"))
    if known.names("analyze") or "analyze" in seen.here:
        views.append(_single(seen, known, "analyze", status.stage == "done" and seen.run.is_analyzed()))
    return views


def _single(seen: Seen, known: Known, stage: Stage, is_done: bool) -> StageView:
    task = known.task(stage, None, is_done)
    verdict = classify(task, seen.now, seen.answer)
    about = _about(task, verdict)
    return StageView(
        stage=stage,
        tasks={verdict.state: 1},
        slurm_state=about.slurm_state,
        reason=about.reason,
        exit_code=about.exit_code,
        node=about.node,
        job=about.job,
        why=verdict.why,
        log=str(seen.run.logs / f"{task.name}.log") if task.name in seen.logs else "",
    )


def _embed_view(seen: Seen, known: Known, shards: Sequence[ShardView]) -> StageView:
    """embed as a whole; before there is a plan, by what was submitted."""
    states, reasons = Counter(shard.state for shard in shards), Counter(s.reason for s in shards if s.reason)
    if not shards:
        for name in known.names("embed"):
            task = known.task("embed", int(name.rpartition("-")[2]), False)
            states[classify(task, seen.now, seen.answer).state] += 1
            if task.live is not None:
                reasons[task.live.task.reason] += 1
    return StageView(
        stage="embed",
        tasks={state: states[state] for state in STATES if states[state]},
        slurm_state="",
        reason=reasons.most_common(1)[0][0] if reasons else "",
        exit_code="",
        node="",
        job="",
        why="",
        log="",
    )
