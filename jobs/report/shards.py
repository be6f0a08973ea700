"""The report of one shard."""

from collections.abc import Collection, Sequence

from jobs.report.device_time import has_unknown_attempts, kept_chunks, spent_on
from jobs.report.observations import Inputs
from jobs.report.schema import AttemptReport, ShardReport, State
from jobs.report.sums import cpus_used, largest, ratio, total


def shard_report(inputs: Inputs, shard: int, attempts: Sequence[AttemptReport], queued: Collection[int]) -> ShardReport:
    """The report of one shard.

    Args:
        inputs: all that was read of the run, which has a plan.
        shard: the shard.
        attempts: the attempts at it.
        queued: the shards that are queued or running.
    """
    assert inputs.plan is not None
    planned, manifest = inputs.plan.shards[shard], inputs.manifests.get(shard)
    chunks = kept_chunks(inputs, shard)
    embedded = sum(seconds for _, seconds in chunks.values()) if chunks else None
    spent = spent_on(inputs, shard, attempts)
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
        attempts_at_least=has_unknown_attempts(manifest, attempts),
        embedded_seconds=embedded,
        embedded_share=None if spent is None else ratio(spent.embedded, spent.total),
        spent=spent,
        tokens_per_second=ratio(sum(tokens for tokens, _ in chunks.values()), embedded),
        predicted_seconds=None if inputs.engine.engine == "hash" else planned.cost_seconds,
        device_seconds=total(attempt.device_seconds for attempt in attempts),
        wall_seconds=total(attempt.wall_seconds for attempt in attempts),
        queue_seconds=total(attempt.queue_seconds for attempt in attempts),
        cpus_requested=largest(attempt.cpus_requested for attempt in attempts),
        cpus_used=cpus_used(attempts),
        memory_requested=largest(attempt.memory_requested for attempt in attempts),
        memory_peak=largest(attempt.memory_peak for attempt in attempts),
        seconds={} if manifest is None else dict(manifest.seconds),
    )
