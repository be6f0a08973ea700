"""Cuts the kept rows into shards and chunks: contiguous, of equal predicted cost, the same every time."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import structs

from embedkit.documents import (
    Compile,
    Curve,
    Device,
    Dtype,
    EngineSettings,
    Kernels,
    NewerFormat,
    Plan,
    PlanShard,
    Request,
    RunConfig,
    digest,
    read,
)
from embedkit.errors import EmbedkitError
from embedkit.prepare.cost import CostModel
from embedkit.run import RunFolder

SHARD_SECONDS = 30 * 60.0
"""Predicted seconds of a shard when the request sets no number of shards."""

CHUNK_TOKENS = {"cuda": 8_000_000, "cpu": 16_384}
TOKEN_BUDGET = {"cuda": 65_536, "cpu": 8_192}
MAX_SEQUENCES = {"cuda": 1024, "cpu": 256}

EAGER_BELOW_SECONDS = 60.0
"""Shards predicted to take less run uncompiled. On an H200 a compiled model is 9 to 18 % faster (long to short rows).
But the engine takes 4 s longer to start with the kernels in the cache, and 13 to 30 s longer without."""
COPY_SECONDS = 20e-6
"""Predicted seconds to copy a vector of 4 kB that the system has in memory: a read, a hash and a write. From a disk it
takes longer, by how much depends on the disk. Rows are read in the order of their ids, so that it may read ahead."""
COPIED_TEXTS = 16_384
"""The most texts of a chunk whose vectors are copied; 64 MB of vectors with 1,024 numbers."""

WINDOW_ROWS = 1 << 20
"""Rows whose costs are computed at a time."""

Counts = npt.NDArray[np.integer[Any]]
Sums = npt.NDArray[np.float64]

ROUNDING = 1e-9
"""How far costs may differ on another CPU, relative to their size: np.log gives other last digits there."""
STORED_ROUNDING = 1e-6
"""How far a stored cost may differ from the computed one, relative to its size: it has seven digits."""


def engine_settings(
    request: Request,
    shard_seconds: float = math.inf,
    earlier: EngineSettings | None = None,
    copies: bool = True,
) -> EngineSettings:
    """The engine's settings for the whole run.

    shard_seconds: predicted seconds of a shard, with a compiled engine.
    earlier: of an earlier plan, which decide where rounding would.
    copies: whether vectors of the reused runs are copied, if there are any; True before that is known.

    A run that copies vectors compiles the model if the run did that made them: it shall have the same engine. All
    reused runs did, or none (`make_config`).

    Each prompt must fit the token budget, because vLLM's chunked prefill is off: with it a prompt of exactly the
    model's limit hangs forever (vllm-project/vllm #29496).
    """
    eager = request.device == "cpu" or shard_seconds < EAGER_BELOW_SECONDS
    if earlier is not None and math.isclose(shard_seconds, EAGER_BELOW_SECONDS, rel_tol=ROUNDING):
        eager = earlier.eager
    if request.reuse and copies and request.device == "cuda":
        eager = request.reuse[0].eager
    settings = settings_of_device(request.device, request.dtype, request.max_length, eager, request.kernels)
    return structs.replace(settings, exact=request.exact)


def compile_of(settings: EngineSettings, curve: Curve | None = None) -> Compile:
    """How an engine with these settings runs its model. Fused kernels do not fit a GPU whose curve has none."""
    has_fused = curve is None or any(one.engine.compile == "fused" for one in curve.engines)
    return (settings if has_fused else structs.replace(settings, kernels="plain")).compile


def settings_of_device(
    device: Device, dtype: Dtype, max_length: int, eager: bool, kernels: Kernels = "plain"
) -> EngineSettings:
    """The settings that any run has on this device."""
    return EngineSettings(
        device=device,
        dtype=dtype,
        max_length=max_length,
        chunk_tokens=CHUNK_TOKENS[device],
        token_budget=max(TOKEN_BUDGET[device], max_length),
        max_sequences=MAX_SEQUENCES[device],
        eager=eager,
        kernels=kernels,
    )


def cut_shards(
    tokens: Counts,
    cost: CostModel,
    shards: int | None,
    num_gpus: int,
    chunk_tokens: int,
    earlier: Sequence[PlanShard] = (),
    copied: Counts | None = None,
) -> tuple[PlanShard, ...]:
    """Cut the kept rows into contiguous shards of equal predicted cost, and each shard into chunks.

    Memory: one float64 per row, and a few int64 per row of the largest shard.

    Args:
        tokens: token counts of the kept rows in order, one column per view, 0 for a text that is empty or copied,
            of any integer type (n, views).
        cost: predicts seconds from token counts.
        shards: number of shards. None: one per half hour of predicted time, rounded up to a multiple of num_gpus,
            but at most one per row.
        num_gpus: GPUs that embed at the same time.
        chunk_tokens: the most tokens of a chunk, except a chunk of one row.
        earlier: the shards of an earlier plan, which decide where rounding would.
        copied: how many texts of each row are copied, of any integer type (n,); None for none.

    Raises:
        EmbedkitError: more shards than rows.
    """
    copied = np.zeros(len(tokens), np.uint16) if copied is None else copied
    # Costs of the rows, whose place their sums then take.
    sums = np.zeros(len(tokens) + 1)
    seconds = sums[1:]
    for window in _windows(0, len(tokens)):
        seconds[window] = _row_seconds(tokens[window], copied[window], cost)
    total = float(seconds.sum())
    np.cumsum(seconds, out=seconds)
    # The number of shards.
    if shards is None:
        exact = total / SHARD_SECONDS / num_gpus
        counts = [min(math.ceil(exact * by) * num_gpus, len(tokens)) for by in (1.0, 1 - ROUNDING, 1 + ROUNDING)]
        shards = len(earlier) if len(earlier) in counts else counts[0]
    if shards > len(tokens):
        raise EmbedkitError(
            f"--shards {shards}, but only {len(tokens)} rows were kept; choose at most {len(tokens)} shards"
        )
    # The ids at which shards begin.
    borders = shard_borders(sums, shards)
    before = [shard.start for shard in earlier] + [shard.stop for shard in earlier[-1:]]
    if _differ_by_rounding(borders, before):
        borders = before
    costs = np.diff(sums[borders]).tolist()
    del sums, seconds
    return tuple(
        _shard(tokens, copied, start, stop, seconds, chunk_tokens)
        for (start, stop), seconds in zip(pairwise(borders), costs, strict=True)
    )


def _row_seconds(tokens: Counts, copied: Counts, cost: CostModel) -> npt.NDArray[np.float64]:
    """Predicted seconds per row, over all views, float64 (n,). An empty text costs nothing."""
    seconds: npt.NDArray[np.float64] = np.where(tokens > 0, cost.seconds(tokens), 0.0).sum(axis=1)
    seconds += COPY_SECONDS * copied
    return seconds


def _shard(tokens: Counts, copied: Counts, start: int, stop: int, cost_seconds: float, chunk_tokens: int) -> PlanShard:
    """The shard of rows [start, stop), with its sums and its chunks. tokens, copied: of all rows."""
    # Sums over the first k rows of the shard, k = 0..n.
    sums = np.zeros(stop - start + 1, np.int64)
    shard_tokens = shard_copied = 0
    for window in _windows(start, stop):
        of_rows = tokens[window].sum(axis=1, dtype=np.int64)
        of_copies = copied[window].astype(np.int64)
        shard_tokens += int(of_rows.sum())
        shard_copied += int(of_copies.sum())
        sums[window.start - start + 1 : window.stop - start + 1] = of_rows + of_copies * (chunk_tokens // COPIED_TEXTS)
    np.cumsum(sums, out=sums)
    return PlanShard(
        start=start,
        stop=stop,
        tokens=shard_tokens,
        cost_seconds=cost_seconds,
        chunks=tuple(start + border for border in chunk_borders(sums, 0, stop - start, chunk_tokens)),
        copied=shard_copied,
    )


def _windows(start: int, stop: int) -> Iterator[slice]:
    """Rows [start, stop) in slices of WINDOW_ROWS."""
    return (slice(first, min(first + WINDOW_ROWS, stop)) for first in range(start, stop, WINDOW_ROWS))


def _differ_by_rounding(borders: Sequence[int], others: Sequence[int]) -> bool:
    """Whether two cuts of the same rows are equal, except that a row lies on the other side of a border."""
    is_cut = len(borders) == len(others) and (borders[0], borders[-1]) == (others[0], others[-1])
    return (
        is_cut
        and all(a < b for a, b in pairwise(others))
        and all(abs(a - b) <= 1 for a, b in zip(borders, others, strict=True))
    )


def with_stored_costs(plan: Plan) -> Plan:
    """The plan with costs of seven digits. So it is the same to the byte if it is made again on another CPU."""
    shards = tuple(structs.replace(shard, cost_seconds=float(f"{shard.cost_seconds:.7g}")) for shard in plan.shards)
    return structs.replace(plan, shards=shards)


def is_same_plan(one: Plan, other: Plan) -> bool:
    """Whether two plans are equal, except for the last digits of predicted costs, which differ with the CPU."""
    pairs = list(zip(one.shards, other.shards, strict=False))
    if any(not math.isclose(a.cost_seconds, b.cost_seconds, rel_tol=STORED_ROUNDING) for a, b in pairs):
        return False
    shards = tuple(structs.replace(a, cost_seconds=b.cost_seconds) for a, b in pairs)
    return len(one.shards) == len(other.shards) and structs.replace(one, shards=shards) == other


def shard_borders(sums: Sums, shards: int) -> list[int]:
    """Borders [0, ..., n] of shards with at least one row each; the costliest shard is as cheap as any cut allows.

    Among such cuts, each border lies where the rows before it come nearest to their equal share.

    Args:
        sums: predicted seconds of the first k rows, k = 0..n, float64 (n + 1,).
        shards: number of shards, at most n.
    """
    rows = len(sums) - 1
    # Borders at the nearest equal shares. They are the wish, and their costliest shard is an upper bound.
    nearest = _nearest_borders(sums, shards)
    # Bisect for the lowest limit: the cost per shard at which filling shards greedily still reaches the last row.
    rounding = 1e-12 * sums[-1]
    low, high = sums[-1] / shards, float(np.diff(sums[nearest]).max()) + rounding
    while high - low > rounding:
        middle = (low + high) / 2
        fits = _farthest_borders(partial(_reach, sums, limit=middle), rows, shards)[-1] == rows
        low, high = (low, middle) if fits else (middle, high)
    high += rounding
    # The earliest place of each border: fill shards from the end, so that the rows after the border still fit.
    from_end = _farthest_borders(partial(_reach_back, sums, limit=high), rows, shards)
    earliest = [rows - border for border in reversed(from_end)]
    # From left to right, put each border at its wish, but no later than this shard's limit and no earlier than that.
    borders = [0]
    for k in range(1, shards):
        latest = min(_reach(sums, borders[-1], high), rows - shards + k)
        borders.append(max(min(nearest[k], latest), earliest[k], k))
    return [*borders, rows]


def _nearest_borders(sums: npt.NDArray[np.float64], shards: int) -> list[int]:
    """Borders where the sums come nearest to equal shares, with at least one row per shard."""
    rows = len(sums) - 1
    # For each share, the nearer of the two borders around it.
    wanted = sums[-1] * np.arange(1, shards) / shards
    after = np.searchsorted(sums, wanted).clip(1, rows)
    inner = np.where(sums[after] - wanted < wanted - sums[after - 1], after, after - 1)
    # Move borders right until they ascend strictly, then left until each shard after them has a row.
    inner = np.maximum.accumulate(inner - np.arange(shards - 1)) + np.arange(shards - 1)
    inner = np.clip(inner, np.arange(1, shards), rows - np.arange(shards - 1, 0, -1))
    return [0, *(int(border) for border in inner), rows]


def _farthest_borders(reach: Callable[[int], int], rows: int, shards: int) -> list[int]:
    """Borders of shards that each take as many rows as `reach` lets them, and leave a row for each later shard.

    reach: the end of the longest shard from a border.
    """
    borders = [0]
    for k in range(1, shards + 1):
        borders.append(min(reach(borders[-1]), rows - shards + k))
    return borders


def _reach(sums: Sums, start: int, limit: float) -> int:
    """End of the longest shard from `start` that costs at most `limit`; `start` itself if not even one row fits."""
    return int(np.searchsorted(sums, sums[start] + limit, side="right")) - 1


def _reach_back(sums: Sums, start: int, limit: float) -> int:
    """As `_reach`, with rows counted from the last one."""

    def after(count: int) -> float:
        """Seconds of the last rows."""
        return float(sums[-1] - sums[len(sums) - 1 - count])

    return bisect_right(range(len(sums)), after(start) + limit, key=after) - 1


def chunk_borders(token_sums: npt.NDArray[np.int64], start: int, stop: int, chunk_tokens: int) -> tuple[int, ...]:
    """Ids at which the chunks of [start, stop) begin, then stop. A chunk has at most chunk_tokens tokens, or one row.

    token_sums: tokens of the first k rows, k = 0..n, int64 (n + 1,).
    """
    borders = [start]
    while borders[-1] < stop:
        # The last row that still fits; at least one row, at most the rest of the shard.
        fits = int(np.searchsorted(token_sums, token_sums[borders[-1]] + chunk_tokens, side="right")) - 1
        borders.append(min(max(fits, borders[-1] + 1), stop))
    return tuple(borders)


def shard_of(shards: Sequence[PlanShard], shard: int, plan: Path) -> PlanShard:
    """A shard of the plan, by number. `plan` is the file to name in the error.

    Raises EmbedkitError if there is no such shard.
    """
    if not 0 <= shard < len(shards):
        raise EmbedkitError(f"no shard {shard}: {plan} has shards 0 to {len(shards) - 1}")
    return shards[shard]


def read_plan(run: RunFolder, config: RunConfig) -> Plan:
    """Read the run's plan. Raises EmbedkitError if it is missing, damaged or made for a different request."""
    if not run.plan.exists():
        raise EmbedkitError(f"{run.plan}: no plan yet, prepare has not finished: {run.resume_command}")
    try:
        plan = read(run.plan, Plan)
    except NewerFormat:
        raise
    except EmbedkitError as error:
        raise EmbedkitError(f"{error}; to make it again: {run.prepare_command}") from None
    if plan.request_sha256 != digest(config.request):
        raise EmbedkitError(
            f"{run.plan}: made for a different request than {run.config}. Was one of them edited, or copied here? Put "
            "it back; a plan may also be removed: a resume makes it again"
        )
    return plan
