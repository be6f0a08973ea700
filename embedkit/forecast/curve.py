"""Measures how fast the device of this machine embeds texts of each length: a curve for the cost model.

Texts of one length at a time go through the engine with the settings that a plan writes down, in a process per engine:
an engine that ended may leave memory of the GPU behind. Token ids are random, since speed does not depend on them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.documents import (
    FORMAT,
    Compile,
    Curve,
    Device,
    Dtype,
    EngineName,
    EngineRecord,
    EngineSettings,
    EngineSpeeds,
    Kernels,
)
from embedkit.engines import Engine, misfit, misfit_here, start_engine
from embedkit.errors import EmbedkitError, UsageError
from embedkit.model import read_json
from embedkit.prepare import model_cost, settings_of_device
from embedkit.storage import exit_with_parent, ignore_interrupts

SHORTEST = 16
"""Tokens of the shortest texts. Each of the next is twice as long, and the last ones are as long as the limit."""
SECONDS = 2.0
"""Texts of one length are embedded for this time at least."""
LEAST_BATCHES = {"cuda": 4, "cpu": 0}
"""Batches of one length at least, so that the GPU is busy while the next one is prepared. CPUs need no such thing."""
MOST_TEXTS = 65_536
"""Texts of one length at most: short ones take no two seconds on a fast GPU."""
IDS = 50_000
"""Ids are below this number, or the size of the vocabulary."""


@dataclass(frozen=True)
class Measured:
    """Texts of one length, and the seconds of one of them."""

    length: int
    texts: int
    seconds_per_text: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second, to a tenth."""
        return round(self.length / self.seconds_per_text, 1)


@dataclass(frozen=True, kw_only=True)
class CurveOptions:
    """What to measure: a model on the first visible device, with texts up to max_length, run in each of these ways."""

    model: Path
    engine: EngineName
    device: Device
    dtype: Dtype
    max_length: int
    compiles: tuple[Compile, ...]
    seconds: float = SECONDS


def curve_engines(engine: EngineName, device: Device, dtype: Dtype, model: Path) -> tuple[Compile, ...]:
    """The ways in which runs may have the model run on this device."""
    if engine != "vllm" or device != "cuda":
        return ("eager",)
    return ("compiled", "eager") if misfit(model, dtype) else ("compiled", "eager", "fused")


def measure_curve(options: CurveOptions, report: Callable[[EngineRecord, Measured], object]) -> Curve:
    """Start each engine and measure it. `report` is called after each length.

    Fused kernels that do not fit the GPU are left out.

    Raises:
        UsageError: the engine is not installed, or nothing fits.
        EmbedkitError: an engine's process was killed.
    """
    cost = model_cost(options.model, options.device, options.engine)
    lengths = curve_lengths(options.max_length)
    engines, why_not = [], ""
    for compile_ in options.compiles:
        kernels: Kernels = "fused" if compile_ == "fused" else "plain"
        limits = (options.device, options.dtype, options.max_length)
        settings = settings_of_device(*limits, eager=compile_ == "eager", kernels=kernels)
        speeds = []
        with _engine_process(options, settings) as pool:
            if compile_ == "fused" and (why_not := _misfit(options, pool)):
                continue
            record = pool.submit(_start, options.engine, options.model, settings).result()
            for length in lengths:
                measured = pool.submit(_measure, length, options.seconds).result()
                report(record, measured)
                speeds.append(measured.tokens_per_second)
            pool.submit(_stop).result()
        engines.append(EngineSpeeds(engine=record, tokens_per_second=tuple(speeds)))
    if not engines:
        raise UsageError(f"--only fused: these kernels do not fit: {why_not}; leave it out")
    return Curve(
        format=FORMAT,
        device=options.device,
        model=options.model.resolve().name,
        linear_flops=cost.linear_flops,
        attention_flops=cost.attention_flops,
        lengths=lengths,
        engines=tuple(engines),
    )


def _misfit(options: CurveOptions, pool: ProcessPoolExecutor) -> str:
    """Why fused kernels do not fit; "" if they do. CUDA is asked in the process of the engine."""
    return misfit(options.model, options.dtype) or pool.submit(misfit_here).result()


def curve_lengths(limit: int) -> tuple[int, ...]:
    """The lengths to measure: SHORTEST, twice that and so on below the limit, and the limit."""
    lengths = []
    length = SHORTEST
    while length < limit:
        lengths.append(length)
        length *= 2
    return (*lengths, limit)


def measure_length(engine: Engine, rng: np.random.Generator, length: int, ids: int, seconds: float) -> Measured:
    """Embed texts of one length for so many seconds, after a warm-up that finds out how many texts that takes."""
    device: Device = "cuda" if engine.record.gpu else "cpu"
    least = -(-LEAST_BATCHES[device] * engine.record.token_budget // length)
    count, took = 1, timed(engine, random_texts(rng, [length], ids))
    while took < seconds / 8 and count < MOST_TEXTS:
        count *= 2
        took = timed(engine, random_texts(rng, [length] * count, ids))
    count = min(max(round(count * seconds / took), least, 1), MOST_TEXTS)
    return Measured(length, count, timed(engine, random_texts(rng, [length] * count, ids)) / count)


def random_texts(rng: np.random.Generator, lengths: Sequence[int], ids: int = IDS) -> list[npt.NDArray[np.uint32]]:
    """Texts of these lengths with random ids below `ids`."""
    return [rng.integers(0, ids, length, dtype=np.uint32) for length in lengths]


def timed(engine: Engine, texts: Sequence[npt.NDArray[np.uint32]]) -> float:
    """Seconds to embed some texts."""
    started = time.perf_counter()
    engine.embed(texts)
    return time.perf_counter() - started


@contextlib.contextmanager
def _engine_process(options: CurveOptions, settings: EngineSettings) -> Iterator[ProcessPoolExecutor]:
    """A process for one engine. It ends with the block, whatever happens."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"), initializer=_begin_process) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise EmbedkitError(
                f"the process of the {settings.compile} engine was killed, perhaps for "
                f"memory. Try shorter texts: --max-length {max(options.max_length // 2, 1)}"
            ) from None
        except BaseException:
            for process in active_children():
                process.kill()
            raise


_engine: tuple[Engine, int] | None = None
"""The engine of this process, and the number of its ids."""


def _begin_process() -> None:
    exit_with_parent()
    ignore_interrupts()


def _start(name: EngineName, model: Path, settings: EngineSettings) -> EngineRecord:
    """Start the engine of this process."""
    global _engine
    engine = start_engine(name, model, settings)
    _engine = engine, min(IDS, read_json(model, "config.json").get("vocab_size", IDS))
    return engine.record


def _measure(length: int, seconds: float) -> Measured:
    assert _engine is not None
    engine, ids = _engine
    return measure_length(engine, np.random.default_rng(length), length, ids, seconds)


def _stop() -> None:
    assert _engine is not None
    _engine[0].close()
