"""How long a run will take: by the curve of its GPU, or by its own durable chunks as soon as there are some."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from embedkit.check.status import ShardStatus, share_done
from embedkit.documents import Curve
from embedkit.prepare import REFERENCE, GpuModel, gpu_model
from jobs.monitor.pace import Medians, speed_of
from jobs.monitor.schema import ShardView


@dataclass(frozen=True)
class Measured:
    """A measurement on one kind of GPU ("" on CPUs): its durable chunks took `ratio` times the plan's prediction."""

    gpu: str
    chunks: int
    ratio: float


@dataclass(frozen=True)
class Scale:
    """The factor for the plan's predicted seconds, and its basis in words for people."""

    ratio: float
    basis: str


def measure(shards: Sequence[ShardStatus]) -> tuple[Measured, ...]:
    """Compare the durable chunks with the plan's prediction for them, per kind of GPU, most chunks first."""
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


def scale_of_curve(curve: Curve, measured: Sequence[Measured]) -> Scale:
    """As `scale`, for a run with a curve of its own, by which its plan's seconds are predicted."""
    engine = curve.engine
    if not measured:
        how = f"{engine.engine} {engine.engine_version}, {engine.dtype}, {curve.model}"
        return Scale(1.0, f"as on {curve.gpu}, by the run's curve (embedkit curve: {how})")
    alike = [one for one in measured if one.gpu == engine.gpu]
    best = (alike or list(measured))[0]
    return Scale(best.ratio, _basis(best) + ("" if alike else f"; the run's curve is that of {curve.gpu}"))


def scale(
    wanted: GpuModel | None, curves: Mapping[GpuModel, float], measured: Sequence[Measured], unknown: str = ""
) -> Scale:
    """Choose the best basis: a measurement on the GPU, one on a different GPU, its curve, the reference's curve.

    Args:
        wanted: the GPU that the site's profile requests; None if it does not say.
        curves: how many times the reference's seconds each known GPU takes for the run's lengths; empty on CPUs.
        measured: the run's own measurements.
        unknown: the name of the GPU that is requested, if it has no curve.
    """
    if not measured:
        if not curves:
            return Scale(1.0, "")
        if wanted is None:
            return Scale(curves[REFERENCE], f"as on an {REFERENCE.upper()}: {_why_reference(unknown)}")
        of_reference = "" if wanted == REFERENCE else f": {curves[wanted]:.2f} of an {REFERENCE.upper()}'s time"
        return Scale(curves[wanted], f"as on an {wanted.upper()}, by its curve{of_reference}")
    alike = [one for one in measured if wanted is not None and gpu_model(one.gpu) == wanted]
    best = (alike or list(measured))[0]
    basis = _basis(best)
    if wanted is None or alike or not best.gpu:
        return Scale(best.ratio, basis)
    model = gpu_model(best.gpu)
    if model is None or not curves:
        return Scale(best.ratio, f"{basis}; the profile requests an {wanted.upper()}")
    more = curves[wanted] / curves[model]
    return Scale(best.ratio * more, f"{basis}; an {wanted.upper()} takes {more:.2f} of that by the curves")


def _why_reference(unknown: str) -> str:
    """Why a prediction uses the reference's curve."""
    if unknown:
        return f"no curve of {unknown} is known; on such a GPU `embedkit curve` measures one, for curve in the profile"
    return "the profile does not say which GPU it is (gpu_model)"


def _basis(best: Measured) -> str:
    on = f" on {best.gpu}" if best.gpu else ""
    plural = "" if best.chunks == 1 else "s"
    return f"measured: {best.chunks:,} durable chunk{plural}{on} took {best.ratio:.2f} of the plan's prediction"


def seconds_until_done(running: Iterable[float], waiting: Iterable[float], at_once: int) -> float:
    """Seconds until all tasks are done, if each free place takes the next waiting task.

    So the last wave takes its full time: nine equal tasks on eight places take twice as long as eight.

    Args:
        running: the seconds left of each running task.
        waiting: the seconds of each waiting task, in order.
        at_once: how many tasks may run at the same time.
    """
    ends = list(running)
    ends += [0.0] * (at_once - len(ends))
    heapq.heapify(ends)
    for seconds in waiting:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends, default=0.0)


def shard_seconds_left(shard: ShardStatus, medians: Medians) -> float | None:
    """Seconds until a shard is done at its own speed, or at the median speed before its first chunk."""
    speed = speed_of(shard) or medians.speed
    return None if not speed else shard.predicted_seconds * (1 - share_done(shard)) / speed


def seconds_left(
    views: Sequence[ShardView],
    shards: Sequence[ShardStatus],
    medians: Medians,
    preflight_start: float | None,
    parallel: int,
) -> float | None:
    """Seconds until all queued and running shards are done; None if nothing runs, or a shard's time is unknown.

    A waiting shard also needs the start-up of its engine, and a running one without a chunk the rest of it. That is the
    median start-up of the finished shards, or the preflight's (the longest: it compiles) until one is finished.

    Args:
        views: the shards with their states.
        shards: the same shards by their files, in the same order.
        medians: the medians of the run.
        preflight_start: start-up of the engine in the preflight; None if there was no preflight.
        parallel: how many shards may run at the same time.
    """
    left = [(view, shard_seconds_left(shard, medians)) for view, shard in zip(views, shards, strict=True)]
    start = medians.start_seconds if medians.start_seconds is not None else preflight_start or 0.0
    running = [
        seconds if seconds is None or view.tokens_done else seconds + max(start - (view.quiet_seconds or 0.0), 0.0)
        for view, seconds in left
        if view.state in ("running", "completing")
    ]
    waiting = [
        None if seconds is None else seconds + start
        for view, seconds in left
        if view.state in ("pending", "configuring")
    ]
    if any(view.state in ("held", "suspended") for view in views):
        return None  # they go on when somebody, or Slurm, decides it
    known_running = [seconds for seconds in running if seconds is not None]
    known_waiting = [seconds for seconds in waiting if seconds is not None]
    if not running or len(known_running) < len(running) or len(known_waiting) < len(waiting):
        return None
    return seconds_until_done(known_running, known_waiting, max(len(running), parallel))
