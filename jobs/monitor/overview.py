"""The overview of a run at one moment: its files, joined with what Slurm reports of the tasks that are not done.

`make_overview` is a pure function of the observations; `jobs/monitor/collect.py` collects them.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from embedkit.check.status import ShardStatus, Status
from jobs.monitor.classify import STATES, TaskObservations, TaskState, classify
from jobs.monitor.mixed_gpus import mixed_gpus_note
from jobs.monitor.observations import ObservationsByTask, RunObservations
from jobs.monitor.pace import Alert, Medians, alert_for, medians_of, speed_of
from jobs.monitor.prediction import seconds_left, shard_seconds_left
from jobs.monitor.reasons import urgency
from jobs.monitor.schema import Overview, ShardView, StageView
from jobs.profiles import Stage
from jobs.records import seconds_since_epoch
from jobs.slurm import array_spec


def make_overview(observed: RunObservations) -> Overview:
    """Join the observations of a run into its overview."""
    by_task, status = ObservationsByTask(observed), observed.status
    medians = medians_of(status.shards)
    shards = tuple(_shard_view(observed, by_task, shard, medians) for shard in status.shards)
    running = [shard for shard in shards if shard.state == "running" and shard.alert != "hung"]
    hours = [shard.gpu_hours for shard in shards if shard.gpu_hours is not None]
    live = [task for task in observed.queue or () if not task.task.never_starts]
    may_be_alive = bool(observed.submissions) and observed.queue is None and status.stage != "done"
    return Overview(
        **msgspec.structs.asdict(status.engine),
        run=status.run,
        stage=status.stage,
        at=datetime.fromtimestamp(observed.now, UTC).isoformat(timespec="seconds"),
        is_alive=bool(live or observed.here) or may_be_alive,
        stages=tuple(_stage_views(observed, by_task, shards)),
        shards=shards,
        rows_prepared=status.rows_prepared,
        rows_chosen=status.rows_chosen,
        rows_kept=status.rows_kept,
        dropped=status.dropped,
        tokens_done=status.tokens_done,
        tokens=status.tokens,
        tokens_per_second=sum(shard.tokens_per_second for shard in running),
        median_speed=medians.speed,
        seconds_left=seconds_left(shards, status.shards, medians, observed.start_seconds, by_task.parallel),
        gpu_hours=sum(hours) if hours else None,
        launcher_stages=tuple(observed.launcher_stages),
        accounting=None if not observed.submissions else observed.records is not None,
        notes=(*observed.notes, *_lost_nodes(observed), *mixed_gpus_note(_finished_gpus(status))),
    )


def _lost_nodes(observed: RunObservations) -> list[str]:
    """Name the nodes that were lost while they ran tasks that are queued or running again, and preempted tasks."""
    live = {(task.task.job, task.task.index): task for task in observed.queue or ()}
    newest = {(record.job, record.index): record for record in observed.records or () if record.started is not None}
    lost: dict[str, set[int]] = {}
    for record in observed.records or ():
        if record.state == "NODE_FAIL" and (record.job, record.index) in live:
            lost.setdefault(record.node, set()).update(live[record.job, record.index].shards)
    preempted = [
        task
        for key, task in live.items()
        if task.task.is_pending and key in newest and newest[key].state == "PREEMPTED"
    ]
    notes = [
        f"node {node} was lost; Slurm starts its tasks again by itself{_of_shards(shards)}"
        for node, shards in sorted(lost.items())
    ]
    if preempted:
        shards = {shard for task in preempted for shard in task.shards}
        notes.append(f"preempted by jobs of higher priority; Slurm starts them again by itself{_of_shards(shards)}")
    return notes


def _finished_gpus(status: Status) -> list[tuple[int, str]]:
    return [(shard.shard, shard.gpu) for shard in status.shards if shard.state == "done"]


def _of_shards(shards: Collection[int]) -> str:
    return f": shards {array_spec(sorted(shards))}" if shards else ""


def _shard_view(
    observed: RunObservations, by_task: ObservationsByTask, shard: ShardStatus, medians: Medians
) -> ShardView:
    task = by_task.task("embed", shard.shard, shard.state == "done", shard.problem)
    found = classify(task, observed.now, observed.queue_state)
    runs = found.state == "running"
    job = _job_view(task, found)
    quiet = _quiet_seconds(observed, task, shard) if runs else None
    alert: Alert = alert_for(shard, quiet, medians, observed.hung_after) if runs else ""
    if alert == "hung" and job.slurm_state not in ("RUNNING", ""):
        alert = ""  # a state in which it may be that nothing works on it
    return ShardView(
        shard=shard.shard,
        state=found.state,
        alert=alert,
        slurm_state=job.slurm_state,
        reason=job.reason,
        exit_code=job.exit_code,
        node=job.node,
        job=job.name,
        attempts=by_task.attempts("embed", shard.shard),
        rows_done=shard.rows_done,
        rows=shard.rows,
        tokens_done=shard.tokens_done,
        tokens=shard.tokens,
        tokens_per_second=shard.tokens_per_second,
        speed=speed_of(shard),
        seconds_left=shard_seconds_left(shard, medians) if runs and alert != "hung" else None,
        quiet_seconds=quiet,
        gpu_hours=by_task.gpu_hours(task.name, shard.shard, shard.changed, runs),
        why=found.why,
        error_code=task.attempts[-1].error_code if task.attempts and found.state == "failed" else "",
        log=_log_path(observed, task),
    )


def _log_path(observed: RunObservations, task: TaskObservations) -> str:
    """The log that says most about a task: its own, or that of its array task if the error line is only there."""
    name = task.name
    shared = observed.shared_logs.get(name, "")
    is_error_there = task.error is not None and task.error == observed.errors.get(shared)
    if shared and (is_error_there or name not in observed.logs):
        name = shared
    return str(observed.run.logs / f"{name}.log") if name in observed.logs else ""


@dataclass(frozen=True)
class JobView:
    """The job of a task as Slurm reports it, and the node where it runs or ran."""

    slurm_state: str
    reason: str
    exit_code: str
    node: str
    name: str


def _job_view(task: TaskObservations, found: TaskState) -> JobView:
    """Take each field from the best source that has it: the queue, the newest attempt, the accounting."""
    record = task.records[-1] if task.records else None
    attempt = task.attempts[-1] if task.attempts else None
    live = task.live.task if task.live is not None else None
    name = live.name if live else attempt.job if attempt else record.name if record else ""
    node = (live.node if live else "") or (attempt.node if attempt else "") or (record.node if record else "")
    has_exit_code = live is None and record is not None and found.state == "failed"
    return JobView(
        slurm_state=live.state if live else record.state if record else "",
        reason=live.reason if live is not None and live.reason != "None" else "",
        exit_code=record.exit_code if record is not None and has_exit_code else "",
        node="" if live is not None and live.is_pending else node,
        name=name or (task.submission.job if task.submission is not None else None) or "",
    )


def _quiet_seconds(observed: RunObservations, task: TaskObservations, shard: ShardStatus) -> float | None:
    """Seconds since a chunk of a running shard became durable, or since its start.

    The start is Slurm's where it is known, since clocks of nodes may be wrong. The time of a file may be a node's, too.
    """
    times = [shard.changed] if shard.changed is not None else []
    live = task.live.task if task.live is not None else None
    if live is not None and live.start is not None:
        times.append(live.start)
    if live is not None and live.name in observed.resumed:
        times.append(observed.resumed[live.name])
    if task.attempts:
        times.append(seconds_since_epoch(task.attempts[-1].started.at))
    behind = max(-observed.clock_errors.get(task.attempts[-1].node, 0.0), 0.0) if task.attempts else 0.0
    return max(observed.now - max(times) - behind, 0.0) if times else None


def _stage_views(
    observed: RunObservations, by_task: ObservationsByTask, shards: Sequence[ShardView]
) -> list[StageView]:
    """prepare, embed and merge; preflight and analyze if they were submitted, have a result, or run here."""
    run = observed.run
    views = [_job_stage_view(observed, by_task, "prepare")]
    if run.preflight.exists() or by_task.names("preflight"):
        views.append(_job_stage_view(observed, by_task, "preflight"))
    views.append(_embed_view(observed, by_task, shards))
    views.append(_job_stage_view(observed, by_task, "merge"))
    if by_task.names("analyze") or "analyze" in observed.here:
        views.append(_job_stage_view(observed, by_task, "analyze"))
    return views


def _job_stage_view(observed: RunObservations, by_task: ObservationsByTask, stage: Stage) -> StageView:
    """A stage that is one job."""
    task = by_task.task(stage, None, by_task.is_done(stage))
    found = classify(task, observed.now, observed.queue_state)
    job = _job_view(task, found)
    return StageView(
        stage=stage,
        tasks={found.state: 1},
        slurm_state=job.slurm_state,
        reason=job.reason,
        exit_code=job.exit_code,
        node=job.node,
        job=job.name,
        why=found.why,
        log=_log_path(observed, task),
    )


def _embed_view(observed: RunObservations, by_task: ObservationsByTask, shards: Sequence[ShardView]) -> StageView:
    """embed as a whole; before there is a plan, by the tasks that were submitted."""
    states = Counter(shard.state for shard in shards)
    queued = Counter((shard.slurm_state, shard.reason) for shard in shards if shard.reason)
    jobs: dict[tuple[str, str], dict[str, None]] = {}
    if not shards:
        for name in by_task.names("embed"):
            task = by_task.task("embed", int(name.rpartition("-")[2]), False)
            states[classify(task, observed.now, observed.queue_state).state] += 1
            if task.live is not None:
                live = task.live.task
                waits = (live.state, "" if live.reason == "None" else live.reason)
                queued[waits] += 1
                jobs.setdefault(waits, {})[live.job] = None
    slurm_state, reason = min(queued, key=lambda waits: (urgency(*waits), -queued[waits]), default=("", ""))
    named = tuple(jobs.get((slurm_state, reason), ()))
    return StageView(
        stage="embed",
        tasks={state: states[state] for state in STATES if states[state]},
        slurm_state="" if shards else slurm_state,
        reason=reason,
        exit_code="",
        node="",
        job=named[0] if named else "",
        why="",
        log="",
        jobs=named,
    )
