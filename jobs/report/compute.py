"""What a run has cost and how it went: every number of `embedkit report`, computed from what was read. Pure functions.

Numbers that nothing tells are None. A sum is over what is known, and None if nothing is; `notes` says what is missing.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from embedkit.documents.schema import EngineName, Plan, ShardManifest
from jobs.profiles.schema import STAGES, Stage
from jobs.report.attempts import LOCAL, AttemptReport, Evidence, Trace, Unit, attempts_of, unit_of

ALWAYS: tuple[Stage, ...] = ("prepare", "embed", "merge")
"""Stages that every run has."""

State = Literal["finished", "running", "queued", "unfinished"]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All that was read of a run. `asked` is when it was asked for; `manifests` holds those that count."""

    run: str
    name: str
    engine: EngineName
    asked: float | None
    merged: bool
    evidence: Evidence
    plan: Plan | None = None
    manifests: Mapping[int, ShardManifest] = field(default_factory=dict)
    merge_timings: Mapping[str, float] = field(default_factory=dict)


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Where the device seconds of embed went; the six add up to `device_seconds`.

    Attributes:
        embedded: in chunks that count, whichever attempt made them.
        starting: the engine's start, in attempts that finished.
        waiting: for texts to be read and tokenized, in attempts that finished.
        checking: canary, adopting, writing, in attempts that finished.
        lost: in attempts that failed or were stopped, without the chunks of theirs that count.
        other: what is left: a task's start and end, and what a running one does besides embedding.
    """

    embedded: float
    starting: float
    waiting: float
    checking: float
    lost: float
    other: float

    @property
    def total(self) -> float:
        """All of it, in device seconds."""
        return self.embedded + self.starting + self.waiting + self.checking + self.lost + self.other


class ShardReport(msgspec.Struct, frozen=True, kw_only=True):
    """One shard. Seconds are sums over its attempts.

    Attributes:
        state: "finished" once its manifest counts; "unfinished": no longer or not yet at work on it.
        chunks_adopted: chunks that the attempt which finished took over from others.
        attempts_at_least: there were others that left no trace.
        wall_seconds: from each attempt's start to its end.
        device_seconds: GPU (or worker) seconds of all attempts.
        embedded_seconds: seconds of the chunks that count.
        embedded_share: of device_seconds, 0 to 1.
        spent: where device_seconds went.
        tokens_per_second: tokens by embedded_seconds.
        predicted_seconds: what the plan predicted for embedding it; None where that means nothing (hash engine).
        cpus_used: CPUs busy on average, over the attempts of which it is known.
        memory_peak: bytes, the most of all attempts.
        seconds: by phase, of the attempt that finished.
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
    cpus_asked: float | None
    cpus_used: float | None
    memory_asked: int | None
    memory_peak: int | None
    seconds: dict[str, float]


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One stage: sums over its attempts, as in ShardReport.

    Attributes:
        started: the first start, seconds since the epoch.
        ended: the last end.
        elapsed_seconds: from `started` to `ended`.
        queue_longest: seconds of the attempt that waited longest.
        lost_wall_seconds: wall seconds of the attempts that ended without having finished.
        seconds: by phase: embed's finished attempts, merge as `_SUCCESS.json` has them.
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
    cpus_asked: float | None
    cpus_used: float | None
    memory_asked: int | None
    memory_peak: int | None
    seconds: dict[str, float]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run. Times are seconds since the epoch; `unit` says of what `device_seconds` are seconds.

    Attributes:
        made: when this report was made.
        asked: when the run was submitted; where it never was, when it was asked for.
        ended: the last end of an attempt; None while the run is not merged.
        elapsed_seconds: from `asked` to `ended`, or to now.
        tokens_per_second: of one GPU or worker, while it embedded.
        device_seconds: of all stages; `spent` and `embedded_share` are of embed's.
        predicted_seconds: of the whole plan.
        cost_ratio: embedded seconds by predicted seconds, over the finished shards.
        device_ratio: device seconds by predicted seconds, over the same.
        accounting: whether Slurm's accounting was there, and knew of all starts on the cluster.
        notes: what is not known, and why, for people.
    """

    run: str
    name: str
    made: float
    merged: bool
    engine: EngineName
    unit: Unit
    accounting: Literal["complete", "partial", "none"]
    asked: float | None
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


def make_report(inputs: Inputs) -> Report:
    """The report of a run from what was read of it."""
    evidence = inputs.evidence
    attempts = attempts_of(evidence)
    of_shard: dict[int, list[AttemptReport]] = defaultdict(list)
    for attempt in attempts:
        if attempt.shard is not None:
            of_shard[attempt.shard].append(attempt)
    count = len(inputs.plan.shards) if inputs.plan is not None else 0
    queued = {shard for live in evidence.live or () if not live.task.never_starts for shard in live.shards}
    shards = tuple(_shard(inputs, shard, of_shard[shard], queued) for shard in range(count))
    stages = tuple(_stage(stage, attempts, inputs, shards) for stage in STAGES if _is_there(stage, attempts))
    done = [shard for shard in shards if shard.state == "finished" and shard.predicted_seconds]
    predicted = total(shard.predicted_seconds for shard in done)
    spent = _add_up([shard.spent for shard in shards if shard.spent is not None])
    embedded = total(shard.embedded_seconds for shard in shards)
    tokens_done = sum(shard.tokens_done for shard in shards)
    began = min((t for t in [inputs.asked, *(a.started for a in attempts)] if t is not None), default=None)
    last = max((a.ended for a in attempts if a.ended is not None), default=None)
    ended = last if inputs.merged else None
    return Report(
        run=inputs.run,
        name=inputs.name,
        made=evidence.now,
        merged=inputs.merged,
        engine=inputs.engine,
        unit=unit_of(evidence),
        accounting=_accounting(evidence, attempts),
        asked=inputs.asked,
        ended=ended,
        elapsed_seconds=None if began is None else max((evidence.now if ended is None else ended) - began, 0.0),
        shards_finished=sum(shard.state == "finished" for shard in shards),
        tokens=inputs.plan.tokens if inputs.plan is not None else None,
        tokens_done=tokens_done,
        tokens_per_second=ratio(tokens_done, embedded),
        device_seconds=total(attempt.device_seconds for attempt in attempts),
        embedded_seconds=embedded,
        embedded_share=None if spent is None else ratio(spent.embedded, spent.total),
        spent=spent,
        predicted_seconds=total(shard.predicted_seconds for shard in shards),
        cost_ratio=ratio(total(shard.embedded_seconds for shard in done), predicted),
        device_ratio=ratio(total(shard.device_seconds for shard in done), predicted),
        stages=stages,
        shards=shards,
        attempts=tuple(attempts),
        notes=tuple(_notes(inputs, attempts, shards)),
    )


def total(values: Iterable[float | None]) -> float | None:
    """The sum of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def ratio(part: float | None, whole: float | None) -> float | None:
    """A part of a whole; None if one is unknown or there is no whole."""
    return None if part is None or whole is None or whole < 1e-9 else part / whole


def _is_there(stage: Stage, attempts: Sequence[AttemptReport]) -> bool:
    return stage in ALWAYS or any(attempt.stage == stage for attempt in attempts)


def _shard(
    inputs: Inputs, shard: int, attempts: Sequence[AttemptReport], queued: Collection[int | None]
) -> ShardReport:
    assert inputs.plan is not None
    planned, manifest = inputs.plan.shards[shard], inputs.manifests.get(shard)
    chunks = _chunks(inputs, shard)
    embedded = sum(seconds for _, seconds in chunks.values()) if chunks else None
    device = total(attempt.device_seconds for attempt in attempts)
    spent = _spent(attempts, manifest, _kept(inputs, shard, attempts), embedded or 0.0, device)
    state: State = "unfinished"
    if manifest is not None:
        state = "finished"
    elif any(attempt.outcome == "running" for attempt in attempts):
        state = "running"
    elif shard in queued:
        state = "queued"
    return ShardReport(
        shard=shard,
        state=state,
        tokens=planned.tokens,
        tokens_done=sum(tokens for tokens, _ in chunks.values()),
        chunks=len(planned.chunks) - 1,
        chunks_done=len(chunks),
        chunks_adopted=None if manifest is None else manifest.chunks_adopted,
        attempts=len(attempts),
        attempts_at_least=_left_no_trace(manifest, attempts),
        embedded_seconds=embedded,
        embedded_share=None if spent is None else ratio(spent.embedded, spent.total),
        spent=spent,
        tokens_per_second=ratio(sum(tokens for tokens, _ in chunks.values()), embedded),
        predicted_seconds=None if inputs.engine == "hash" else planned.cost_seconds,
        device_seconds=device,
        wall_seconds=total(attempt.wall_seconds for attempt in attempts),
        queue_seconds=total(attempt.queue_seconds for attempt in attempts),
        cpus_asked=_most(attempt.cpus_asked for attempt in attempts),
        cpus_used=_cpus_used(attempts),
        memory_asked=_most_bytes(attempt.memory_asked for attempt in attempts),
        memory_peak=_most_bytes(attempt.memory_peak for attempt in attempts),
        seconds={} if manifest is None else dict(manifest.seconds),
    )


def _chunks(inputs: Inputs, shard: int) -> dict[int, tuple[int, float]]:
    """Tokens and seconds of the shard's chunks that count, by first id."""
    manifest = inputs.manifests.get(shard)
    if manifest is not None:
        return {chunk.start: (chunk.tokens, chunk.seconds) for chunk in manifest.chunks}
    return _union(inputs.evidence.traces.get(shard, ()))


def _union(traces: Iterable[Trace]) -> dict[int, tuple[int, float]]:
    return {start: chunk for trace in traces for start, chunk in trace.chunks.items()}


def _kept(inputs: Inputs, shard: int, attempts: Sequence[AttemptReport]) -> float:
    """Seconds of chunks that count and were made by attempts which did not finish."""
    manifest = inputs.manifests.get(shard)
    if manifest is not None:
        return max(sum(chunk.seconds for chunk in manifest.chunks) - manifest.seconds.get("embed", 0.0), 0.0)
    at_work = {(attempt.job, attempt.restart) for attempt in attempts if not attempt.is_lost}
    traces = inputs.evidence.traces.get(shard, ())
    return sum(s for _, s in _union(t for t in traces if (t.job, t.restart) not in at_work).values())


def _left_no_trace(manifest: ShardManifest | None, attempts: Sequence[AttemptReport]) -> bool:
    """Whether chunks were taken over from attempts that nothing is known of: local ones, as a rule."""
    return manifest is not None and bool(manifest.chunks_adopted) and len(attempts) < 2


def _spent(
    attempts: Sequence[AttemptReport],
    manifest: ShardManifest | None,
    kept: float,
    embedded: float,
    device: float | None,
) -> Spent | None:
    """Where device time went; None if it is unknown, or cannot be all that there was."""
    incomplete = manifest is not None and _left_no_trace(manifest, attempts)
    # Times of lines are to the second.
    if device is None or incomplete or embedded > 1.02 * device + 2.0 * len(attempts):
        return None
    left = device

    def take(seconds: float) -> float:
        nonlocal left
        taken = min(max(seconds, 0.0), left)
        left -= taken
        return taken

    lost = total(attempt.device_seconds for attempt in attempts if attempt.is_lost) or 0.0
    phases = {} if manifest is None else manifest.seconds
    return Spent(
        embedded=take(embedded),
        lost=take(lost - kept),
        starting=take(phases.get("start", 0.0)),
        waiting=take(phases.get("wait", 0.0)),
        checking=take(sum(phases.get(phase, 0.0) for phase in ("canary", "adopt", "write"))),
        other=left,
    )


def _add_up(parts: Sequence[Spent]) -> Spent | None:
    if not parts:
        return None
    names = Spent.__struct_fields__
    return Spent(**{name: sum(getattr(part, name) for part in parts) for name in names})


def _stage(
    stage: Stage, everything: Sequence[AttemptReport], inputs: Inputs, shards: Sequence[ShardReport]
) -> StageReport:
    attempts = [attempt for attempt in everything if attempt.stage == stage]
    started = min((a.started for a in attempts if a.started is not None), default=None)
    ended = max((a.ended for a in attempts if a.ended is not None), default=None)
    phases: dict[str, float] = {}
    if stage == "embed":
        for shard in shards:
            for phase, seconds in shard.seconds.items():
                phases[phase] = phases.get(phase, 0.0) + seconds
    elif stage == "merge":
        phases = dict(inputs.merge_timings)
    return StageReport(
        stage=stage,
        attempts=len(attempts),
        attempts_lost=sum(attempt.is_lost for attempt in attempts),
        attempts_at_least=any(shard.attempts_at_least for shard in shards) and stage == "embed",
        started=started,
        ended=ended,
        elapsed_seconds=None if started is None or ended is None else max(ended - started, 0.0),
        wall_seconds=total(attempt.wall_seconds for attempt in attempts),
        queue_seconds=total(attempt.queue_seconds for attempt in attempts),
        queue_longest=_most(attempt.queue_seconds for attempt in attempts),
        device_seconds=total(attempt.device_seconds for attempt in attempts),
        lost_wall_seconds=total(a.wall_seconds if a.is_lost else 0.0 for a in attempts),
        cpus_asked=_most(attempt.cpus_asked for attempt in attempts),
        cpus_used=_cpus_used(attempts),
        memory_asked=_most_bytes(attempt.memory_asked for attempt in attempts),
        memory_peak=_most_bytes(attempt.memory_peak for attempt in attempts),
        seconds=phases,
    )


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _most_bytes(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _cpus_used(attempts: Sequence[AttemptReport]) -> float | None:
    """CPUs busy on average, over the attempts of which that is known."""
    known = [(a.cpu_seconds, a.wall_seconds) for a in attempts if a.cpu_seconds is not None and a.wall_seconds]
    return ratio(total(cpu for cpu, _ in known), total(wall for _, wall in known))


def _accounting(evidence: Evidence, attempts: Sequence[AttemptReport]) -> Literal["complete", "partial", "none"]:
    if evidence.records is None or not any(attempt.job != LOCAL for attempt in attempts):
        return "none"
    starts = {(attempt.job, attempt.restart) for attempt in attempts if attempt.job != LOCAL}
    known = sum(record.started is not None for record in evidence.records)
    return "complete" if known >= len(starts) else "partial"


def _notes(inputs: Inputs, attempts: Sequence[AttemptReport], shards: Sequence[ShardReport]) -> Iterable[str]:
    evidence = inputs.evidence
    submitted = [attempt for attempt in attempts if attempt.job != LOCAL]
    if inputs.plan is None:
        yield "not prepared yet: there are no shards"
    if submitted and evidence.records is None:
        yield "no accounting: what was not written down before a task was killed is not known"
    elif submitted and _accounting(evidence, attempts) == "partial":
        yield "the accounting does not know of every start (purged, or some seconds late): files say the rest"
    local = [attempt for attempt in attempts if attempt.job == LOCAL]
    if local:
        yield "what ran on this machine without Slurm kept no record of CPUs, memory or earlier starts"
    guessed = sum(attempt.ended_at_least for attempt in attempts)
    if guessed:
        yield f"{guessed} starts ended without a word: when is known only as a time that they outlived (>=)"
    unknown = sum(attempt.outcome == "unknown" for attempt in attempts)
    if unknown:
        yield f"whether {unknown} starts still run is not known: Slurm was not asked, or did not answer"
    missing = [shard.shard for shard in shards if shard.attempts_at_least]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        named = ", ".join(map(str, missing[:3]))
        yield f"earlier attempts at shards {named}{more} left chunks but no times: their cost is not in here"
    torn = [s.shard for s in shards if s.spent is None and s.embedded_seconds and not s.attempts_at_least]
    if torn:
        yield f"{len(torn)} shards embedded for longer than their known starts took, and have no share: shard {torn[0]}"
