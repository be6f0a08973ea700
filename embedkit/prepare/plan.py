"""From token counts to shards and chunks: contiguous, of equal predicted cost, the same every time."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.documents.codec import digest, read
from embedkit.documents.schema import EngineSettings, Plan, PlanShard, Request, RunConfig
from embedkit.errors import EmbedkitError
from embedkit.prepare.cost import CostModel
from embedkit.run import RunFolder

SHARD_SECONDS = 30 * 60.0
"""Predicted seconds of a shard when the number of shards is not asked for."""

CHUNK_TOKENS = {"cuda": 8_000_000, "cpu": 16_384}
TOKEN_BUDGET = {"cuda": 65_536, "cpu": 8_192}
MAX_SEQUENCES = {"cuda": 1024, "cpu": 256}

EAGER_BELOW_SECONDS = 60.0
"""Shards of fewer seconds run uncompiled. On an H200 compiled ones are 9 to 18 % faster (long to short rows), and the
engine's start takes 4 s longer where the kernels are in the cache, 13 to 30 s where they are not."""


def engine_settings(request: Request, shard_seconds: float = math.inf) -> EngineSettings:
    """The engine's settings for the whole run; shard_seconds: what a shard is predicted to take.

    A prompt must fit the token budget whole: vLLM's chunked prefill is off, since with it a prompt of
    exactly the model's limit hangs for ever (vllm-project/vllm #29496).
    """
    return EngineSettings(
        device=request.device,
        dtype=request.dtype,
        max_length=request.max_length,
        chunk_tokens=CHUNK_TOKENS[request.device],
        token_budget=max(TOKEN_BUDGET[request.device], request.max_length),
        max_sequences=MAX_SEQUENCES[request.device],
        eager=request.device == "cpu" or shard_seconds < EAGER_BELOW_SECONDS,
    )


def cut_shards(
    tokens: npt.NDArray[np.int64], cost: CostModel, shards: int | None, num_gpus: int, chunk_tokens: int
) -> tuple[PlanShard, ...]:
    """Cut the row index into contiguous shards of equal predicted cost.

    Args:
        tokens: token counts of the kept rows in order, a column a view, 0 for an empty text, int64 (n, views).
        shards: how many; None for predicted time over half an hour, rounded up to a multiple of num_gpus
            (and at most one a row).
        chunk_tokens: the most tokens of a chunk, unless one row alone has more.

    Raises:
        EmbedkitError: more shards than rows.
    """
    seconds = np.where(tokens > 0, cost.seconds(tokens), 0.0).sum(axis=1)
    if shards is None:
        shards = min(math.ceil(seconds.sum() / SHARD_SECONDS / num_gpus) * num_gpus, len(tokens))
    if shards > len(tokens):
        raise EmbedkitError(f"--shards {shards}, but only {len(tokens)} rows were kept; ask for {len(tokens)} at most")
    borders = shard_borders(seconds, shards)
    token_sums = np.concatenate([np.zeros(1, np.int64), tokens.sum(axis=1).cumsum()])
    cost_sums = np.concatenate([np.zeros(1), seconds.cumsum()])
    return tuple(
        PlanShard(
            start=start,
            stop=stop,
            tokens=int(token_sums[stop] - token_sums[start]),
            cost_seconds=float(cost_sums[stop] - cost_sums[start]),
            chunks=chunk_borders(token_sums, start, stop, chunk_tokens),
        )
        for start, stop in pairwise(borders)
    )


def shard_borders(seconds: npt.NDArray[np.float64], shards: int) -> list[int]:
    """Borders [0, ..., n] so that every shard has at least a row and the heaviest costs as little as any cut allows.

    Under that, each border is where the rows before it come nearest to their equal share.
    """
    sums = np.concatenate([np.zeros(1), seconds.cumsum()])
    rows = len(seconds)
    nearest = _nearest_borders(sums, shards)
    rounding = 1e-12 * sums[-1]
    low, high = sums[-1] / shards, float(np.diff(sums[nearest]).max()) + rounding
    while high - low > rounding:
        middle = (low + high) / 2
        low, high = (low, middle) if _farthest_borders(sums, shards, middle)[-1] == rows else (middle, high)
    high += rounding
    # The same cut from behind gives how far back each border may lie, so that the rows after it fit the other shards.
    earliest = [rows - border for border in reversed(_farthest_borders(sums[-1] - sums[::-1], shards, high))]
    borders = [0]
    for k in range(1, shards):
        latest = min(_reach(sums, borders[-1], high), rows - shards + k)
        borders.append(max(min(nearest[k], latest), earliest[k], k))
    return [*borders, rows]


def _nearest_borders(sums: npt.NDArray[np.float64], shards: int) -> list[int]:
    """Borders where the sums come nearest to equal shares, each shard with at least a row."""
    rows = len(sums) - 1
    wanted = sums[-1] * np.arange(1, shards) / shards
    after = np.searchsorted(sums, wanted).clip(1, rows)
    inner = np.where(sums[after] - wanted < wanted - sums[after - 1], after, after - 1)
    inner = np.maximum.accumulate(inner - np.arange(shards - 1)) + np.arange(shards - 1)
    inner = np.clip(inner, np.arange(1, shards), rows - np.arange(shards - 1, 0, -1))
    return [0, *(int(border) for border in inner), rows]


def _farthest_borders(sums: npt.NDArray[np.float64], shards: int, most: float) -> list[int]:
    """Borders of shards that each take all rows that cost no more than `most` together (or one row)."""
    borders = [0]
    for k in range(1, shards + 1):
        borders.append(min(_reach(sums, borders[-1], most), len(sums) - 1 - shards + k))
    return borders


def _reach(sums: npt.NDArray[np.float64], start: int, most: float) -> int:
    """Where a shard from `start` that costs at most `most` ends; a start beyond which no row fits is its own end."""
    return int(np.searchsorted(sums, sums[start] + most, side="right")) - 1


def chunk_borders(token_sums: npt.NDArray[np.int64], start: int, stop: int, chunk_tokens: int) -> tuple[int, ...]:
    """Ids at which the chunks of [start, stop) begin, then stop; each holds at most chunk_tokens or one row."""
    borders = [start]
    while borders[-1] < stop:
        fits = int(np.searchsorted(token_sums, token_sums[borders[-1]] + chunk_tokens, side="right")) - 1
        borders.append(min(max(fits, borders[-1] + 1), stop))
    return tuple(borders)


def shard_of(shards: Sequence[PlanShard], shard: int, plan: Path) -> PlanShard:
    """The plan's entry of a shard. Raises EmbedkitError if there is no such shard."""
    if not 0 <= shard < len(shards):
        raise EmbedkitError(f"no shard {shard}: {plan} has shards 0 to {len(shards) - 1}")
    return shards[shard]


def read_plan(run: RunFolder, config: RunConfig) -> Plan:
    """The run's plan. Raises EmbedkitError if it is missing or made for another request."""
    if not run.plan.exists():
        raise EmbedkitError(f"{run.plan}: no plan yet, prepare has not finished: {run.resume_command}")
    plan = read(run.plan, Plan)
    if plan.request_sha256 != digest(config.request):
        raise EmbedkitError(
            f"{run.plan}: made for another request than {run.config}; was one of them edited, or copied here? Put it "
            "back; a plan may also be removed: a resume makes it again"
        )
    return plan
