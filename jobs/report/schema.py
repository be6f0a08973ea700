"""The report of a run as `embedkit report --json` prints it: every field, with its meaning and unit."""

from typing import Literal

import msgspec

from embedkit.engines import EngineFacts
from jobs.profiles import Stage

Outcome = Literal["finished", "stopped", "cancelled", "failed", "running", "unknown"]
Unit = Literal["gpu", "worker"]
State = Literal["finished", "running", "queued", "unfinished"]


class AttemptReport(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a job. Times are seconds since the epoch, memory is bytes; what is unknown is None, never 0.

    Attributes:
        shard: the shard; None for jobs that are no shard's.
        job: the job as Slurm names it, `123_17`; "local" on a machine without Slurm.
        restart: how often Slurm had requeued the job; None if only the accounting knows of this attempt.
        node: where it ran.
        outcome: how it ended; "unknown" if it has no exit record and may still be running.
        why: the cause of a failure, by its exit record or else by Slurm.
        started: when its node was allocated; without accounting, when it wrote its first line.
        ended: when it ended; now if it runs.
        ended_at_least: whether it ended at an unknown time after `ended`.
        wall_seconds: from `started` to `ended`.
        queue_seconds: how long it waited although it could have run. Time during which the run's own limit on tasks at
            once held it back does not count.
        gpus: GPUs of its own: shards that share an array task share its GPUs. None on workers without GPUs.
        device_seconds: wall time times GPUs, or times 1 for a worker that embeds.
        cpus_requested: CPUs requested.
        cpu_seconds: CPU time used, of all processes.
        memory_requested: bytes requested.
        memory_peak: bytes used at the peak.
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
    cpus_requested: float | None
    cpu_seconds: float | None
    memory_requested: int | None
    memory_peak: int | None

    @property
    def is_lost(self) -> bool:
        """Whether it ended without finishing."""
        return self.outcome in ("stopped", "cancelled", "failed")


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """How the device seconds of embed were spent; the six parts add up to `device_seconds`.

    Attributes:
        embedded: embedding chunks that are kept, in any attempt.
        starting: starting the engine, in attempts that finished.
        waiting: waiting for texts to be read and tokenized, in attempts that finished.
        checking: canary, adopting chunks, writing, in attempts that finished.
        lost: attempts that failed or were stopped, without those of their chunks that are kept.
        other: the rest: a task's start and end, and what a running attempt does besides embedding.
    """

    embedded: float
    starting: float
    waiting: float
    checking: float
    lost: float
    other: float

    @property
    def total(self) -> float:
        """The sum of the parts, in device seconds."""
        return self.embedded + self.starting + self.waiting + self.checking + self.lost + self.other


class ShardReport(msgspec.Struct, frozen=True, kw_only=True):
    """One shard. Seconds are sums over its attempts.

    Attributes:
        state: "finished" if its manifest is valid; "unfinished" if nothing works on it and it is not queued.
        chunks_adopted: chunks that the finished attempt adopted from earlier ones.
        attempts_at_least: whether there were more attempts, of which nothing is known.
        wall_seconds: from each attempt's start to its end.
        device_seconds: GPU (or worker) seconds of all attempts.
        embedded_seconds: seconds of the chunks that are kept.
        embedded_share: `spent.embedded` as a share of all of `spent`, 0 to 1.
        spent: how device_seconds were spent.
        tokens_per_second: tokens of the kept chunks per embedded second.
        predicted_seconds: the plan's prediction for embedding it; None for the hash engine, which has none.
        cpus_used: CPUs busy on average, over the attempts for which it is known.
        memory_peak: bytes, the largest of all attempts.
        seconds: seconds by phase, of the finished attempt.
    """

    shard: int
    state: State
    tokens: int
    tokens_done: int
    chunks: int
    chunks_done: int
    chunks_adopted: int | None
    attempts: int
    attempts_at_least: bool
    wall_seconds: float | None
    queue_seconds: float | None
    device_seconds: float | None
    embedded_seconds: float | None
    embedded_share: float | None
    spent: Spent | None
    tokens_per_second: float | None
    predicted_seconds: float | None
    cpus_requested: float | None
    cpus_used: float | None
    memory_requested: int | None
    memory_peak: int | None
    seconds: dict[str, float]


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One stage: sums over its attempts, as in ShardReport.

    Attributes:
        started: when the first attempt started, seconds since the epoch.
        ended: when the last attempt ended.
        elapsed_seconds: from `started` to `ended`.
        queue_longest: seconds that the longest-waiting attempt waited.
        lost_wall_seconds: wall seconds of the attempts that ended without finishing.
        seconds: seconds by phase: of embed's finished attempts, or of merge as in `_SUCCESS.json`.
    """

    stage: Stage
    attempts: int
    attempts_lost: int
    attempts_at_least: bool
    started: float | None
    ended: float | None
    elapsed_seconds: float | None
    wall_seconds: float | None
    queue_seconds: float | None
    queue_longest: float | None
    device_seconds: float | None
    lost_wall_seconds: float | None
    cpus_requested: float | None
    cpus_used: float | None
    memory_requested: int | None
    memory_peak: int | None
    seconds: dict[str, float]


class Report(EngineFacts, frozen=True, kw_only=True):
    """A run, with the facts about its engine.

    Times are seconds since the epoch; `device_seconds` are GPU or worker seconds, by `unit`.

    Attributes:
        made: when this report was made.
        requested_at: when the run was submitted; if it never was, when it was requested.
        ended: when the last attempt ended; None while the run is not merged.
        elapsed_seconds: from `requested_at` to `ended`, or to now.
        tokens_per_second: of one GPU or worker while it embedded.
        device_seconds: of all stages; `spent` and `embedded_share` are embed's alone.
        predicted_seconds: of the whole plan.
        cost_ratio: embedded seconds divided by predicted seconds, over the finished shards.
        device_ratio: device seconds divided by predicted seconds, over the same shards.
        accounting: whether Slurm's accounting answered, and had a record of every attempt on the cluster.
        notes: what is not known and why, and GPU models if there are several, for people.
    """

    run: str
    name: str
    made: float
    merged: bool
    unit: Unit
    accounting: Literal["complete", "partial", "none"]
    requested_at: float | None
    ended: float | None
    elapsed_seconds: float | None
    shards_finished: int
    tokens: int | None
    tokens_done: int
    tokens_per_second: float | None
    device_seconds: float | None
    embedded_seconds: float | None
    embedded_share: float | None
    spent: Spent | None
    predicted_seconds: float | None
    cost_ratio: float | None
    device_ratio: float | None
    stages: tuple[StageReport, ...]
    shards: tuple[ShardReport, ...]
    attempts: tuple[AttemptReport, ...]
    notes: tuple[str, ...]
