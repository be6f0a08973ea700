"""Every start of a run's jobs, put together from what files say of it and what the accounting adds. Pure functions.

Files come first: a start's own lines, then what it left in its shard's folder. The accounting widens its time to what
was allocated, and knows of starts that died before they could write a line.
"""

import re
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from embedkit.documents.schema import Device
from jobs.profiles.schema import Stage
from jobs.records.attempts import NO_EXIT_RECORD, Start
from jobs.records.submissions import LiveTask, Submission, seconds_since_epoch
from jobs.slurm.accounting import JobRecord
from jobs.slurm.client import job_id

LOCAL = "local"
CLOCKS = 5.0
"""Seconds by which the clocks of a node and of the accounting may differ."""
MEBIBYTE = 1 << 20

Outcome = Literal["finished", "stopped", "cancelled", "failed", "running", "unknown"]
Unit = Literal["gpu", "worker"]
Place = tuple[Stage, int | None]
"""A stage, and the shard where there is one: what a lane of the timeline and a file of attempts are about."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What one attempt at a shard left in its folder. Times are seconds since the epoch.

    `ended` is when it was last seen at work, or when it published its manifest (`finished`); `chunks` has tokens and
    seconds of those that are durable, by first id; `adopted_seconds` is what those took that it had of others.
    """

    job: str
    restart: int
    node: str
    started: float | None
    ended: float | None
    finished: bool
    chunks: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    adopted_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that was read of the attempts of a run; times are seconds since the epoch.

    `last_signs` is when a start without a last word was last heard of, by place, job and restart. `local_stages` has
    first and last sign of stages that ran on this machine and keep no lines. `records` is None without accounting,
    `live` where Slurm was not asked or did not answer.
    """

    now: float
    device: Device
    starts: Mapping[Place, Sequence[Start]] = field(default_factory=dict)
    last_signs: Mapping[tuple[Place, str, int], float] = field(default_factory=dict)
    traces: Mapping[int, Sequence[Trace]] = field(default_factory=dict)
    local_stages: Mapping[Stage, tuple[float, float]] = field(default_factory=dict)
    submissions: Sequence[Submission] = ()
    records: Sequence[JobRecord] | None = None
    live: Sequence[LiveTask] | None = None


class AttemptReport(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a job. Times are seconds since the epoch, memory is bytes; None is unknown, never 0.

    Attributes:
        shard: None for jobs that are no shard's.
        job: as Slurm names it, `123_17`; "local" on a machine without Slurm.
        restart: how often Slurm had requeued it; None if only the accounting knows of this start.
        node: where it ran.
        outcome: "unknown" if it said no last word, and nothing tells whether it still runs.
        why: what it, or else Slurm, said of a failure.
        started: when its node was allocated; without accounting, its first line.
        ended: now if it runs.
        ended_at_least: whether it ended at an unknown time after `ended`.
        wall_seconds: from `started` to `ended`.
        queue_seconds: how long it could have run and did not; what a run's own limit on tasks at once kept back for
            does not count.
        gpus: GPUs of its own; where several shards share a task, a share of them. On workers without GPUs, None.
        device_seconds: wall time times GPUs, or times 1 for a worker that embeds.
        cpus_asked: CPUs.
        cpu_seconds: CPU time used, all processes.
        memory_asked: bytes.
        memory_peak: bytes used at most.
    """

    stage: Stage
    shard: int | None
    job: str
    restart: int | None
    node: str | None
    outcome: Outcome
    why: str | None
    started: float | None
    ended: float | None
    ended_at_least: bool
    wall_seconds: float | None
    queue_seconds: float | None
    gpus: float | None
    device_seconds: float | None
    cpus_asked: float | None
    cpu_seconds: float | None
    memory_asked: int | None
    memory_peak: int | None

    @property
    def is_lost(self) -> bool:
        """Whether it ended without having finished."""
        return self.outcome in ("stopped", "cancelled", "failed")


@dataclass(kw_only=True)
class _Draft:
    """What is known of one start while it is put together."""

    place: Place
    job: str
    restart: int | None
    start: Start | None = None
    trace: Trace | None = None
    record: JobRecord | None = None
    submission: Submission | None = None
    shared_by: int = 1
    started: float | None = None
    ended: float | None = None
    at_least: bool = False
    outcome: Outcome = "unknown"

    @property
    def first_line(self) -> float | None:
        if self.start is not None:
            return seconds_since_epoch(self.start.first.at)
        return self.trace.started if self.trace is not None else None


def shards_of(line: Submission, index: int | None) -> tuple[int | None, ...]:
    """The shards of a task that wrote no line of its own; (None,) for a job that is no array."""
    return (None,) if index is None else line.groups.get(index, (index,))


def unit_of(evidence: Evidence) -> Unit:
    """What time is counted by: GPUs if any were asked for or the engine needs them, else workers."""
    asked = any(line.gpus for line in evidence.submissions) or any(record.gpus for record in evidence.records or ())
    return "gpu" if asked or evidence.device == "cuda" else "worker"


def attempts_of(evidence: Evidence) -> list[AttemptReport]:
    """Every start that anything is known of, by stage and shard, oldest first."""
    drafts = _from_files(evidence)
    drafts += _with_records(drafts, evidence)
    by_job = {line.job: line for line in evidence.submissions if line.what == "submitted"}
    sharing = Counter((draft.job, draft.restart) for draft in drafts if draft.place[0] == "embed")
    for draft in drafts:
        draft.submission = by_job.get(job_id(draft.job))
        if draft.job != LOCAL and draft.restart is not None and draft.place[0] == "embed":
            draft.shared_by = sharing[draft.job, draft.restart]
        draft.started = min((t for t in (draft.first_line, _started(draft.record)) if t is not None), default=None)
    lanes: dict[Place, list[_Draft]] = defaultdict(list)
    for draft in sorted(drafts, key=lambda draft: (draft.started is None, draft.started or 0.0)):
        lanes[draft.place].append(draft)
    for lane in lanes.values():
        for at, draft in enumerate(lane):
            _end(draft, lane[at + 1].started if at + 1 < len(lane) else None, at + 1 == len(lane), evidence)
        _outlived_its_chunks(lane)
    tasks: dict[str, list[_Draft]] = defaultdict(list)
    for draft in drafts:
        tasks[draft.job].append(draft)
    ends, held = _ends_of_jobs(drafts), _held_back(drafts)
    unit = unit_of(evidence)
    order = sorted(lanes, key=lambda place: (place[0], -1 if place[1] is None else place[1]))
    return [
        _report(draft, _queued(draft, tasks[draft.job], ends, held.get(id(draft))), unit, evidence.device)
        for place in order
        for draft in lanes[place]
    ]


def _from_files(evidence: Evidence) -> list[_Draft]:
    drafts = [
        _Draft(place=place, job=start.first.job, restart=start.first.restart, start=start)
        for place, starts in evidence.starts.items()
        for start in starts
    ]
    known = {(draft.place, draft.job, draft.restart): draft for draft in drafts}
    for shard, traces in evidence.traces.items():
        place: Place = ("embed", shard)
        for trace in traces:
            draft = known.get((place, trace.job, trace.restart)) if trace.job != LOCAL else None
            if draft is None:
                drafts.append(_Draft(place=place, job=trace.job, restart=trace.restart, trace=trace))
            elif draft.trace is None or trace.finished:
                draft.trace = trace
    for stage, (began, ended) in evidence.local_stages.items():
        if not evidence.starts.get((stage, None)):
            local = Trace(job=LOCAL, restart=0, node="", started=began, ended=ended, finished=True)
            drafts.append(_Draft(place=(stage, None), job=LOCAL, restart=0, trace=local))
    return drafts


def _with_records(drafts: Sequence[_Draft], evidence: Evidence) -> list[_Draft]:
    """Give each draft its record in the accounting; returns drafts for starts that only the accounting knows."""
    left: dict[str, list[JobRecord]] = defaultdict(list)
    for record in evidence.records or ():
        if record.started is not None:
            left[record.name].append(record)
    tasks: dict[tuple[str, int], list[_Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.job in left and draft.restart is not None:
            tasks[draft.job, draft.restart].append(draft)
    for (job, _), same in sorted(tasks.items()):
        began = min((t for t in (draft.first_line for draft in same) if t is not None), default=None)
        fitting = [r for r in left[job] if began is not None and (r.started or 0.0) <= began + CLOCKS]
        if fitting:
            newest = max(fitting, key=lambda record: record.started or 0.0)
            left[job].remove(newest)
            for draft in same:
                draft.record = newest
    lines = {line.job: line for line in evidence.submissions if line.what == "submitted"}
    return [
        _Draft(place=(lines[record.job].stage, shard), job=job, restart=None, record=record)
        for job, records in left.items()
        for record in records
        if record.job in lines
        for shard in shards_of(lines[record.job], record.index)
    ]


def _started(record: JobRecord | None) -> float | None:
    return record.started if record is not None else None


def _end(draft: _Draft, following: float | None, newest: bool, evidence: Evidence) -> None:
    """Say how a start ended and when. `following` is when the next one in its lane started, if that is known."""
    last = draft.start.last if draft.start is not None else None
    draft.outcome = _outcome(draft, newest, evidence)
    signs = [seconds_since_epoch(last.at)] if last is not None else []
    if draft.trace is not None and draft.trace.ended is not None and (draft.trace.finished or last is None):
        signs.append(draft.trace.ended)
    whole = bool(last) or (draft.trace is not None and draft.trace.finished)
    if draft.outcome == "running":
        signs, whole = [evidence.now], True
    elif draft.record is not None and draft.record.ended is not None:
        signs, whole = [*signs[:whole], draft.record.ended], True
    elif not whole:
        sign = evidence.last_signs.get((draft.place, draft.job, draft.restart if draft.restart is not None else -1))
        signs += [] if sign is None else [sign]
        signs = [sign if following is None else min(sign, following) for sign in signs]
    if signs:
        draft.ended, draft.at_least = max(*signs, draft.started or 0.0), not whole


def _outlived_its_chunks(lane: Sequence[_Draft]) -> None:
    """Of two starts, the silent first made what the second took over, and lived as long as that took at least."""
    if len(lane) != 2 or lane[1].trace is None or lane[0].started is None or lane[1].started is None:
        return
    first = lane[0]
    if first.at_least or first.ended is None:
        kept = min(lane[0].started + lane[1].trace.adopted_seconds, lane[1].started)
        if kept > (first.ended or lane[0].started):
            first.ended, first.at_least = kept, True


ENDED: Mapping[str, Outcome] = {"COMPLETED": "finished", "CANCELLED": "cancelled", "PREEMPTED": "stopped"}
"""What Slurm's word for an end means where the task itself said none; any other is a failure."""


def _outcome(draft: _Draft, newest: bool, evidence: Evidence) -> Outcome:
    if draft.start is not None and draft.start.last is not None and draft.start.last.what != "started":
        return draft.start.last.what
    if draft.trace is not None and draft.trace.finished:
        return "finished"
    state = draft.record.state if draft.record is not None else ""
    if draft.record is not None and draft.record.is_over and state:
        return ENDED.get(state, "failed")
    if not newest:
        return "failed"
    if draft.job != LOCAL and evidence.live is not None:
        running = {live.task.name for live in evidence.live if live.task.state != "PENDING"}
        return "running" if draft.job in running else "failed"
    return "running" if state else "unknown"


def _ends_of_jobs(drafts: Sequence[_Draft]) -> dict[str, float]:
    """When the last start of each job ended, by its id."""
    ends: dict[str, float] = {}
    for draft in drafts:
        if draft.ended is not None:
            ends[job_id(draft.job)] = max(draft.ended, ends.get(job_id(draft.job), draft.ended))
    return ends


def _held_back(drafts: Sequence[_Draft]) -> dict[int, float]:
    """Until when a start was held back by its array's limit on tasks at once (`%8`), by id() of its draft.

    A task may run when all but the limit, less one, of those that started before it have ended.
    """
    jobs: dict[str, list[_Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.submission is not None and draft.submission.array and draft.started is not None:
            jobs[job_id(draft.job)].append(draft)
    held: dict[int, float] = {}
    for same in jobs.values():
        limit = (same[0].submission.array if same[0].submission else "").partition("%")[2]
        if not limit.isdecimal():
            continue
        ends: list[float] = []
        for draft in sorted(same, key=lambda draft: draft.started or 0.0):
            if len(ends) >= int(limit):
                held[id(draft)] = ends[len(ends) - int(limit)]
            insort(ends, draft.ended if draft.ended is not None else draft.started or 0.0)
    return held


def _queued(draft: _Draft, task: Sequence[_Draft], ends: Mapping[str, float], held_back: float | None) -> float | None:
    """Seconds that a start waited for its turn; None if nothing says since when."""
    if draft.started is None:
        return None
    if draft.record is not None and draft.record.eligible is not None:
        since = draft.record.eligible
    else:
        before = [other.ended for other in task if other.ended is not None and _is_before(other, draft)]
        if draft.submission is None or (draft.restart and not before):
            return None
        waited = [ends[job] for job in draft.submission.dependency_ids if job in ends]
        held = [] if held_back is None else [held_back]
        since = max([seconds_since_epoch(draft.submission.at), *before, *waited, *held])
    return max(draft.started - since, 0.0)


def _is_before(other: _Draft, draft: _Draft) -> bool:
    """Whether another start of the same task came before."""
    return other.restart is not None and draft.restart is not None and other.restart < draft.restart


def _report(draft: _Draft, queued: float | None, unit: Unit, device: Device) -> AttemptReport:
    stage, shard = draft.place
    record, last = draft.record, draft.start.last if draft.start is not None else None
    wall = None if draft.started is None or draft.ended is None else max(draft.ended - draft.started, 0.0)
    gpus = _gpus(draft, device) if unit == "gpu" else None
    devices = gpus if unit == "gpu" else 1.0 if stage == "embed" else None
    asked = draft.submission.cpus if draft.submission is not None else None
    cpus = asked or (record.cpus if record is not None else None) or None
    memory = draft.submission.mem * MEBIBYTE if draft.submission is not None and draft.submission.mem else None
    if memory is None and record is not None:
        memory = record.memory_asked or None
    spent = last.cpu_seconds if last is not None else None
    if spent is None and record is not None and record.cpu_seconds is not None:
        spent = record.cpu_seconds / draft.shared_by
    peak = last.peak_bytes if last is not None else None
    if peak is None and record is not None and draft.shared_by == 1:
        peak = record.memory
    return AttemptReport(
        stage=stage,
        shard=shard,
        job=draft.job,
        restart=draft.restart,
        node=_node(draft),
        outcome=draft.outcome,
        why=_why(draft),
        started=draft.started,
        ended=draft.ended,
        ended_at_least=draft.at_least,
        wall_seconds=wall,
        queue_seconds=queued,
        gpus=gpus,
        device_seconds=None if wall is None or devices is None else wall * devices,
        cpus_asked=None if cpus is None else cpus / draft.shared_by,
        cpu_seconds=spent,
        memory_asked=None if memory is None else memory // draft.shared_by,
        memory_peak=peak,
    )


def _gpus(draft: _Draft, device: Device) -> float:
    """GPUs of a start: the accounting's, else those asked for, else the one that an engine on a GPU has."""
    asked = draft.record.gpus if draft.record is not None else 0
    asked = asked or (draft.submission.gpus if draft.submission is not None else 0)
    if not asked and device == "cuda" and draft.place[0] in ("preflight", "embed"):
        return 1.0
    return asked / draft.shared_by


def _node(draft: _Draft) -> str | None:
    if draft.start is not None:
        return draft.start.first.node
    if draft.record is not None and draft.record.node:
        return draft.record.node
    return (draft.trace.node or None) if draft.trace is not None else None


def _why(draft: _Draft) -> str | None:
    if draft.outcome not in ("stopped", "cancelled", "failed"):
        return None
    said = draft.start.why if draft.start is not None else NO_EXIT_RECORD
    state = draft.record.state if draft.record is not None else ""
    if said == NO_EXIT_RECORD and state and draft.record is not None and draft.record.is_over:
        return f"{NO_EXIT_RECORD}; Slurm says {state}"
    return re.sub(r"\s+", " ", said).strip() or None
