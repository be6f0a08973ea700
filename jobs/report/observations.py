"""What was observed of a run and its attempts, before it is put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from embedkit.documents import Device, Plan, ShardManifest
from embedkit.engines import EngineFacts
from jobs.profiles import Stage
from jobs.records import Attempt, LiveTask, Place, Submission
from jobs.slurm import JobRecord

LOCAL = "local"
"""The job of an attempt outside Slurm."""


@dataclass(frozen=True, kw_only=True)
class AttemptFiles:
    """What one attempt at a shard left in the shard's folder. Times are seconds since the epoch.

    Attributes:
        ended: when it had at least made its chunks; if it finished, when it had.
        finished: whether it published the shard's manifest.
        chunks: tokens and seconds of its durable chunks, by first id.
        adopted_seconds: seconds of the chunks that it adopted from earlier attempts.
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
class AttemptObservations:
    """All that was observed of the attempts of a run. Times are seconds since the epoch.

    Attributes:
        attempts: from the attempts files, oldest first.
        last_writes: when an attempt without an exit record last wrote to its log, by place, job and restart.
        files: what attempts left in the shards' folders, by shard.
        local_stages: start and end of stages that ran outside Slurm and have no attempts file.
        records: the run's records in the accounting; None if there is no accounting.
        live: the run's tasks in the queue; None if Slurm was not queried or did not answer.
        launcher_stages: the stages whose profile has a `launcher`.
        clock_errors: seconds by which the clocks of nodes are ahead; the times above are corrected by them.
    """

    now: float
    device: Device
    attempts: Mapping[Place, Sequence[Attempt]] = field(default_factory=dict)
    last_writes: Mapping[tuple[Place, str, int], float] = field(default_factory=dict)
    files: Mapping[int, Sequence[AttemptFiles]] = field(default_factory=dict)
    local_stages: Mapping[Stage, tuple[float, float]] = field(default_factory=dict)
    submissions: Sequence[Submission] = ()
    records: Sequence[JobRecord] | None = None
    live: Sequence[LiveTask] | None = None
    launcher_stages: Sequence[Stage] = ()
    clock_errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All that was read of a run.

    Attributes:
        engine: the facts about its engine.
        requested_at: when it was submitted; if it never was, when it was requested. Seconds since the epoch.
        observed: what was observed of its attempts.
        manifests: the manifests of its finished shards.
        merge_timings: seconds of merge by phase.
    """

    run: str
    name: str
    engine: EngineFacts
    requested_at: float | None
    merged: bool
    observed: AttemptObservations
    plan: Plan | None = None
    manifests: Mapping[int, ShardManifest] = field(default_factory=dict)
    merge_timings: Mapping[str, float] = field(default_factory=dict)
