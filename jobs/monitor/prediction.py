"""Seconds that a run will take: by the curve of its GPU, or by its own durable chunks as soon as there are some."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from embedkit.check.status import ShardStatus
from embedkit.prepare.cost import REFERENCE, GpuModel, gpu_model
from jobs.monitor.classify import speed_of


@dataclass(frozen=True)
class Measured:
    """So many durable chunks on one kind of GPU ("" on CPUs) took `ratio` times the plan's prediction."""

    gpu: str
    chunks: int
    ratio: float


@dataclass(frozen=True)
class Scale:
    """What the plan's seconds are to be multiplied with, and how that is known."""

    ratio: float
    basis: str


def measure(shards: Sequence[ShardStatus]) -> tuple[Measured, ...]:
    """What is durable against what the plan predicted of it, by GPU, most chunks first."""
    by_gpu: dict[str, list[tuple[ShardStatus, float]]] = {}
    for shard in shards:
        speed = speed_of(shard)
        if speed:
            by_gpu.setdefault(shard.gpu, []).append((shard, speed))
    found = [
        Measured(
            gpu=gpu,
            chunks=sum(shard.chunks_done for shard, _ in own),
            ratio=sum(shard.embed_seconds for shard, _ in own)
            / sum(shard.embed_seconds * speed for shard, speed in own),
        )
        for gpu, own in by_gpu.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.chunks, one.gpu)))


def scale(wanted: GpuModel | None, curves: Mapping[GpuModel, float], measured: Sequence[Measured]) -> Scale:
    """The best that is known of a GPU: what was measured on it, then on another, then its curve, then the reference's.

    Args:
        wanted: the GPU that the site's profile asks for; None if it does not say.
        curves: how many times the reference's seconds each known GPU takes for the run's lengths; empty on CPUs.
        measured: what the run itself has measured.
    """
    if not measured:
        if not curves:
            return Scale(1.0, "")
        if wanted is None:
            said = f"as on an {REFERENCE.upper()}: the profile does not say which GPU it is (gpu_model)"
            return Scale(curves[REFERENCE], said)
        of_reference = "" if wanted == REFERENCE else f": {curves[wanted]:.2f} of an {REFERENCE.upper()}'s time"
        return Scale(curves[wanted], f"as on an {wanted.upper()}, by its curve{of_reference}")
    alike = [one for one in measured if wanted is not None and gpu_model(one.gpu) == wanted]
    best = (alike or list(measured))[0]
    on = f" on {best.gpu}" if best.gpu else ""
    plural = "" if best.chunks == 1 else "s"
    basis = f"measured: {best.chunks:,} durable chunk{plural}{on} took {best.ratio:.2f} of the plan's prediction"
    if wanted is None or alike or not best.gpu:
        return Scale(best.ratio, basis)
    model = gpu_model(best.gpu)
    if model is None or not curves:
        return Scale(best.ratio, f"{basis}; the profile asks for an {wanted.upper()}")
    more = curves[wanted] / curves[model]
    return Scale(best.ratio * more, f"{basis}; an {wanted.upper()} takes {more:.2f} of that by the curves")


def seconds_until_done(running: Iterable[float], waiting: Iterable[float], at_once: int) -> float:
    """Seconds until tasks are done, each place taking the next that waits as soon as it is free.

    So the last wave counts whole: nine equal tasks on eight places take twice as long as eight.
    """
    ends = list(running)
    ends += [0.0] * (at_once - len(ends))
    heapq.heapify(ends)
    for seconds in waiting:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends, default=0.0)
