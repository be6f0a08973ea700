"""The overview of a run as `embedkit status --json` prints it."""

from typing import Literal

import msgspec

from embedkit.engines import EngineFacts
from jobs.monitor.classify import State
from jobs.monitor.pace import Alert
from jobs.profiles import Stage


class ShardView(msgspec.Struct, frozen=True, kw_only=True):
    """One shard.

    Attributes:
        state: its state.
        alert: whether it is slow or hung; "" if it is neither, or does not run.
        slurm_state: the state that Slurm reports; "" if it reports none.
        reason: why it is queued, as Slurm reports it.
        exit_code: Slurm's exit code, `1:0`, if it failed.
        node: where it runs or ran last.
        job: its newest job, `123_17`.
        attempts: how many attempts there were, with those that only the accounting knows of.
        tokens_per_second: while embedding; 0 before its first chunk.
        speed: predicted seconds of work that it completes per second (1: as predicted); None before its first chunk.
        seconds_left: until it is done, if it runs; None if unknown.
        quiet_seconds: since its last chunk became durable, its start, or the end of a suspension; None if it does not
            run.
        gpu_hours: of all its attempts; None if unknown.
        why: the cause of its state, in one line.
        error_code: the kind of its failure, if its newest attempt recorded one.
        log: the path of its log; "" if there is none.
    """

    shard: int
    state: State
    alert: Alert
    slurm_state: str
    reason: str
    exit_code: str
    node: str
    job: str
    attempts: int
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
    error_code: str
    log: str


class StageView(msgspec.Struct, frozen=True, kw_only=True):
    """One stage: the number of its tasks in each state. The other fields are those of its job; empty for embed.

    Until there is a plan, embed has the state and reason that most need a person, and all `jobs` that have them:
    without an array it has one job per task. `job` is the first of them.
    """

    stage: Stage
    tasks: dict[State, int]
    slurm_state: str
    reason: str
    exit_code: str
    node: str
    job: str
    why: str
    log: str
    jobs: tuple[str, ...] = ()


class Overview(EngineFacts, frozen=True, kw_only=True):
    """A run at one moment, with the facts about its engine.

    Attributes:
        at: when it was observed, ISO 8601 in UTC.
        is_alive: whether anything is queued or running, as far as is known.
        median_speed: the median of the shards' `speed`.
        seconds_left: until all queued and running shards are done; None if unknown.
        gpu_hours: of all shards; None if unknown.
        accounting: whether sacct answered; None if nothing was submitted.
        launcher_stages: the stages whose profile has a `launcher`.
        notes: what could not be observed and what that means, lost nodes, and GPU models if several.
    """

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
    launcher_stages: tuple[Stage, ...] = ()
