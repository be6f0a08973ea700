"""The pace of running shards: what is usual in a run, and whether a shard is slow or hung. Pure functions."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from embedkit.check.status import ShardStatus, share_done

Alert = Literal["", "slow", "hung"]

SLOW = 0.6
"""A running shard is slow below this share of the median shard's speed."""
SLOW_AMONG, SLOW_AFTER_SECONDS = 4, 30.0
"""A median needs so many shards to mean something, and a shard so many seconds of embedding to be judged by it."""
HUNG_SECONDS, HUNG_CHUNKS = 300.0, 5.0
"""A running shard is hung if no chunk became durable for so many seconds, and for so many times a usual chunk."""
START_SECONDS, HUNG_STARTS = 600.0, 5.0
"""The same before its first chunk, counted from its start, and in usual start-up times of an engine."""


@dataclass(frozen=True)
class Medians:
    """Medians over the `shards` shards of a run that have a durable chunk; None if there is none.

    `speed` is explained at `speed_of`; `start_seconds` is the start-up of an engine, over finished shards.
    """

    shards: int
    speed: float | None
    chunk_seconds: float | None
    start_seconds: float | None


def medians_of(shards: Sequence[ShardStatus]) -> Medians:
    """Compute what is usual for a shard of this run."""
    begun = [shard for shard in shards if shard.chunks_done and shard.embed_seconds > 0]
    starts = [shard.start_seconds for shard in shards if shard.start_seconds is not None]
    return Medians(
        shards=len(begun),
        speed=_median([speed for shard in begun if (speed := speed_of(shard)) is not None]),
        chunk_seconds=_median([shard.embed_seconds / shard.chunks_done for shard in begun]),
        start_seconds=_median(starts),
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def speed_of(shard: ShardStatus) -> float | None:
    """Predicted seconds of work that a shard completes per second of embedding; None before its first chunk."""
    if not shard.tokens_done or shard.embed_seconds <= 0:
        return None
    return shard.predicted_seconds * share_done(shard) / shard.embed_seconds


def alert_for(shard: ShardStatus, quiet_seconds: float | None, medians: Medians, hung_after: float | None) -> Alert:
    """Decide whether a running shard is hung or slow, compared with the medians of its run.

    Args:
        shard: the shard, by its files.
        quiet_seconds: since its last chunk became durable, or since its start; None if unknown.
        medians: the medians of the run.
        hung_after: quiet seconds after which a shard is hung; None for a limit from the medians.
    """
    predicted_chunk = shard.predicted_seconds / max(shard.chunks, 1)
    if shard.chunks_done:
        limit = max(HUNG_SECONDS, HUNG_CHUNKS * max(medians.chunk_seconds or 0.0, predicted_chunk))
    else:
        limit = max(START_SECONDS, HUNG_STARTS * (medians.start_seconds or 0.0) + HUNG_CHUNKS * predicted_chunk)
    if quiet_seconds is not None and quiet_seconds > (limit if hung_after is None else hung_after):
        return "hung"
    speed = speed_of(shard)
    enough = medians.shards >= SLOW_AMONG and shard.embed_seconds >= SLOW_AFTER_SECONDS
    is_slow = enough and speed is not None and medians.speed is not None and speed < SLOW * medians.speed
    return "slow" if is_slow else ""
