"""Made-up histories of runs, in memory: the observations of attempts that went in known ways."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from embedkit.documents.schema import (
    FORMAT,
    Canary,
    Chunk,
    Device,
    EngineName,
    EngineRecord,
    EngineSettings,
    FileRecord,
    Plan,
    PlanShard,
    Request,
    ShardManifest,
)
from embedkit.engines.facts import EngineFacts
from jobs.profiles.schema import Stage
from jobs.records.attempts import Attempt, AttemptEvent
from jobs.records.submission import Submission
from jobs.report.observations import AttemptFiles, AttemptObservations, Inputs
from jobs.slurm.accounting import JobRecord

T0 = 1_800_000_000.0
"""When all these runs were submitted, seconds since the epoch."""
GIB = 1 << 30


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def attempt_of(
    job: str,
    started: float,
    ended: float | None = None,
    what: Literal["finished", "stopped", "cancelled", "failed"] = "finished",
    restart: int = 0,
    why: str = "",
    node: str = "n1",
    cpu_seconds: float | None = None,
) -> Attempt:
    """An attempt with its events, times in seconds after T0; without `ended` it has no exit record."""
    base = {"format": FORMAT, "job": job, "restart": restart, "node": node}
    first = AttemptEvent(**base, what="started", at=iso(T0 + started), done=0, why="")  # type: ignore[arg-type]
    if ended is None:
        return Attempt(first, None)
    used = {"cpu_seconds": cpu_seconds, "peak_bytes": None if cpu_seconds is None else GIB}
    return Attempt(first, AttemptEvent(**base, what=what, at=iso(T0 + ended), done=1, why=why, **used))  # type: ignore[arg-type]


def submission(
    stage: Stage, job: str, array: str = "", after: Sequence[str] = (), at: float = 0.0, gpus: int = 0
) -> Submission:
    return Submission(
        format=FORMAT,
        what="submitted",
        at=iso(T0 + at),
        tag="t",
        stage=stage,
        job=job,
        array=array,
        dependency="afterok:" + ":".join(after) if after else "",
        why="submit",
        profile="p",
        time=60,
        mem=2048,
        cpus=4,
        gpus=gpus,
    )


def record(
    job: str, index: int | None, started: float, ended: float | None, state: str, eligible: float = 0.0, gpus: int = 0
) -> JobRecord:
    return JobRecord(
        job=job,
        index=index,
        state=state,
        node="n9",
        submitted=T0,
        eligible=T0 + eligible,
        started=T0 + started,
        ended=None if ended is None else T0 + ended,
        cpus=4,
        memory_requested=2 * GIB,
        gpus=gpus,
        cpu_seconds=3.0,
        memory=GIB // 2,
    )


def plan(shards: int, cost_seconds: float = 10.0) -> Plan:
    """Shards of ten rows, five chunks and 1,000 tokens each."""
    return Plan(
        format=FORMAT,
        request_sha256="r",
        rows=10 * shards,
        rows_chosen=10 * shards,
        rows_kept=10 * shards,
        dropped={},
        dropped_rows=FileRecord(name="d", bytes=0, sha256=""),
        tokens=1000 * shards,
        parts=(),
        shards=tuple(
            PlanShard(
                start=10 * s,
                stop=10 * s + 10,
                tokens=1000,
                cost_seconds=cost_seconds,
                chunks=tuple(range(10 * s, 10 * s + 11, 2)),
            )
            for s in range(shards)
        ),
        order="longest_first",
        settings=EngineSettings(
            device="cpu", dtype="float32", max_length=9, chunk_tokens=9, token_budget=9, max_sequences=9, eager=True
        ),
    )


ENGINE = EngineRecord(
    engine="vllm",
    engine_version="1",
    torch="",
    cuda="",
    gpu="",
    attention="",
    compile="",
    dtype="float32",
    token_budget=9,
    dim=4,
)
REQUEST = Request(
    data=(),
    data_revision=None,
    config=None,
    split=None,
    messages_column="m",
    source_column="s",
    sample_size=None,
    random_seed=None,
    views=("combined",),
    max_length=9,
    shards=1,
    texts="all",
    model_files=(),
    model_revision=None,
    tokenizers_version="1",
    engine="vllm",
    device="cuda",
    dtype="float32",
)


def manifest(shard: int, attempt: str, chunk_seconds: float = 1.0, adopted: int = 0) -> ShardManifest:
    """A finished shard of `plan`: five chunks of `chunk_seconds` each, `adopted` of them from an earlier attempt."""
    chunks = tuple(
        Chunk(
            start=10 * shard + at,
            stop=10 * shard + at + 2,
            tokens=200,
            inputs_sha256="",
            views={},
            seconds=chunk_seconds,
        )
        for at in range(0, 10, 2)
    )
    return ShardManifest(
        format=FORMAT,
        shard=shard,
        attempt=attempt,
        job=attempt.rpartition("-")[0].rpartition("-")[0],
        host="n1",
        request_sha256="r",
        request=REQUEST,
        plan_sha256="p",
        engine=ENGINE,
        start=10 * shard,
        stop=10 * shard + 10,
        tokens=1000,
        inputs_sha256="",
        matrices={},
        canary=Canary(tokens=(), before=b"", after=b""),
        chunks=chunks,
        chunks_adopted=adopted,
        seconds={"start": 1.0, "canary": 0.5, "embed": (5 - adopted) * chunk_seconds, "wait": 0.5},
        tokens_per_second=200.0,
    )


def inputs(
    observed: AttemptObservations,
    shards: int = 1,
    manifests: Mapping[int, ShardManifest] | None = None,
    engine: EngineName = "vllm",
    merged: bool = False,
) -> Inputs:
    return Inputs(
        run=str(Path("/runs/x")),
        name="x",
        engine=EngineFacts(engine=engine, engine_version="0.24.0", device=observed.device, dtype="bfloat16"),
        requested_at=T0,
        merged=merged,
        observed=observed,
        plan=plan(shards),
        manifests=manifests or {},
    )


def observations(
    attempts: Mapping[int, Sequence[Attempt]],
    submissions: Sequence[Submission] = (),
    records: Sequence[JobRecord] | None = None,
    device: Device = "cuda",
    now: float = 1000.0,
    **more: object,
) -> AttemptObservations:
    """Observations of embed alone: attempts by shard."""
    return AttemptObservations(
        now=T0 + now,
        device=device,
        attempts={("embed", shard): lane for shard, lane in attempts.items()},
        submissions=submissions,
        records=records,
        **more,  # type: ignore[arg-type]
    )


def finished_files(job: str, restart: int, started: float, ended: float) -> AttemptFiles:
    return AttemptFiles(job=job, restart=restart, node="n1", started=T0 + started, ended=T0 + ended, finished=True)
