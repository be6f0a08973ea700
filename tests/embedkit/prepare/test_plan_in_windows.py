"""Plans that are cut in windows of rows, from counts that are gathered part by part, are those of all rows at once."""

import itertools
import math
import tracemalloc
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.documents.schema import FORMAT, FileRecord, PartManifest, PlanShard
from embedkit.prepare import plan as plan_module
from embedkit.prepare.cost import CostModel
from embedkit.prepare.dropped_rows import DROPPED_SCHEMA
from embedkit.prepare.gathered_rows import GatheredRows
from embedkit.prepare.part_borders import part_borders
from embedkit.prepare.parts import Part
from embedkit.prepare.plan import cut_shards

COSTS = (
    CostModel("cuda", linear_flops=8.8e8, attention_flops=114_688.0),
    CostModel("cpu", linear_flops=80e6, attention_flops=3.0),
)
Ints = npt.NDArray[np.int64]


def cut_at_once(
    tokens: Ints, copied: Ints, cost: CostModel, shards: int | None, num_gpus: int, chunk_tokens: int
) -> tuple[PlanShard, ...]:
    """The formulas of earlier versions, which had arrays of all rows."""
    seconds = np.where(tokens > 0, cost.seconds(tokens), 0.0).sum(axis=1) + 20e-6 * copied
    if shards is None:
        shards = min(math.ceil(float(seconds.sum()) / 1800 / num_gpus) * num_gpus, len(tokens))
    sums = np.concatenate([[0.0], seconds.cumsum()])
    borders = borders_at_once(sums, shards)
    weights = np.concatenate([[0], (tokens.sum(axis=1) + copied * (chunk_tokens // 16_384)).cumsum()])
    return tuple(
        PlanShard(
            start=a,
            stop=b,
            tokens=int(tokens[a:b].sum()),
            cost_seconds=float(sums[b] - sums[a]),
            chunks=chunks_at_once(weights, a, b, chunk_tokens),
            copied=int(copied[a:b].sum()),
        )
        for a, b in itertools.pairwise(borders)
    )


def borders_at_once(sums: npt.NDArray[np.float64], shards: int) -> list[int]:
    rows = len(sums) - 1
    wanted = sums[-1] * np.arange(1, shards) / shards
    after = np.searchsorted(sums, wanted).clip(1, rows)
    inner = np.where(sums[after] - wanted < wanted - sums[after - 1], after, after - 1)
    inner = np.maximum.accumulate(inner - np.arange(shards - 1)) + np.arange(shards - 1)
    inner = np.clip(inner, np.arange(1, shards), rows - np.arange(shards - 1, 0, -1))
    nearest = [0, *inner.tolist(), rows]

    def reach(of: npt.NDArray[np.float64], start: int, limit: float) -> int:
        return int(np.searchsorted(of, of[start] + limit, side="right")) - 1

    def farthest(of: npt.NDArray[np.float64], limit: float) -> list[int]:
        borders = [0]
        for k in range(1, shards + 1):
            borders.append(min(reach(of, borders[-1], limit), rows - shards + k))
        return borders

    rounding = 1e-12 * sums[-1]
    low, high = sums[-1] / shards, float(np.diff(sums[nearest]).max()) + rounding
    while high - low > rounding:
        middle = (low + high) / 2
        low, high = (low, middle) if farthest(sums, middle)[-1] == rows else (middle, high)
    high += rounding
    earliest = [rows - border for border in reversed(farthest(sums[-1] - sums[::-1], high))]
    borders = [0]
    for k in range(1, shards):
        latest = min(reach(sums, borders[-1], high), rows - shards + k)
        borders.append(max(min(nearest[k], latest), earliest[k], k))
    return [*borders, rows]


def chunks_at_once(weights: Ints, start: int, stop: int, most: int) -> tuple[int, ...]:
    borders = [start]
    while borders[-1] < stop:
        fits = int(np.searchsorted(weights, weights[borders[-1]] + most, side="right")) - 1
        borders.append(min(max(fits, borders[-1] + 1), stop))
    return tuple(borders)


@given(
    counts=st.lists(st.one_of(st.just(0), st.integers(1, 40_000)), min_size=1, max_size=400),
    views=st.integers(1, 11),
    shards=st.one_of(st.none(), st.integers(1, 40)),
    gpus=st.integers(1, 8),
    chunk_tokens=st.sampled_from([100, 16_384, 50_000, 8_000_000]),
    window=st.integers(1, 500),
    seed=st.integers(0, 2**32),
    cost=st.sampled_from(COSTS),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_change_no_bit_of_a_plan(
    counts: list[int],
    views: int,
    shards: int | None,
    gpus: int,
    chunk_tokens: int,
    window: int,
    seed: int,
    cost: CostModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Costs too, to the last digit, with int32 in place of int64, and with any size of windows."""
    rng = np.random.default_rng(seed)
    tokens = rng.permuted(np.tile(np.array(counts)[:, None], views), axis=0)
    is_copied = (rng.random(tokens.shape) < rng.choice([0, 0.3])) & (tokens > 0)
    tokens[is_copied] = 0
    tokens[-1] = 7  # something to embed, or all costs are 0
    is_copied[-1] = False
    copied = is_copied.sum(axis=1)
    shards = None if shards is None else min(shards, len(tokens))
    monkeypatch.setattr(plan_module, "WINDOW_ROWS", window)
    found = cut_shards(tokens.astype(np.int32), cost, shards, gpus, chunk_tokens, (), copied.astype(np.uint16))
    assert found == cut_at_once(tokens, copied, cost, shards, gpus, chunk_tokens)


def test_a_plan_takes_at_most_eleven_bytes_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight for the sum of costs, two for the number of copies, and a little for windows, a shard and its chunks."""
    monkeypatch.setattr(plan_module, "WINDOW_ROWS", 1000)
    tokens = np.random.default_rng(0).integers(1, 2000, (1_000_000, 1)).astype(np.int32)
    tracemalloc.start()
    try:
        cut_shards(tokens, COSTS[0], 64, 8, 8_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 11 * len(tokens)


@given(
    sizes=st.lists(st.one_of(st.integers(0, 2_000), st.floats(0, 200e6, width=32)), max_size=300),
    rows=st.integers(1, 50),
    most=st.integers(1, 1 << 28),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_are_cut_as_from_sums_of_all_rows(
    sizes: list[float], rows: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedkit.prepare.part_borders.PART_ROWS", rows)
    monkeypatch.setattr("embedkit.prepare.part_borders.PART_BYTES", most)
    of_rows = np.array(sizes, np.float32)
    sums = np.concatenate([np.zeros(1), of_rows.astype(np.float64).cumsum()])
    for even in (False, True):
        borders = [0]
        while borders[-1] < len(sizes):
            left = (sum(map(int, sizes)) - sums[borders[-1]]) / 8
            bytes_here = most if even else min(max(left, most / 4), most)
            fits = int(np.searchsorted(sums, sums[borders[-1]] + bytes_here, side="right")) - 1
            rows_left = len(sizes) - borders[-1]
            rows_here = rows // 4 if even else int(min(max(rows_left / 8, rows / 4), rows))
            borders.append(min(max(fits, borders[-1] + 1), borders[-1] + max(rows_here, 1), len(sizes)))
        assert part_borders(of_rows, even=even) == tuple(borders)


def part(number: int, start: int, stop: int, tokens: Sequence[Sequence[int]], copied: Sequence[Sequence[bool]]) -> Part:
    lost = stop - start - len(tokens)
    manifest = PartManifest(
        format=FORMAT,
        index_sha256="",
        part=number,
        start=start,
        stop=stop,
        kept=len(tokens),
        dropped={"empty": lost},
        tokens=sum(map(sum, tokens)),
        extracted=FileRecord(name="part.parquet", bytes=1, sha256=""),
        dropped_rows=None,
        tokenizer="",
        audited=0,
    )
    rows = {"row": range(stop - lost, stop), "dataset_source": ["s"] * lost, "reason": ["empty"] * lost}
    dropped = pl.DataFrame({**rows, "token_count": [None] * lost}, schema=DROPPED_SCHEMA)
    shape = (len(tokens), 2)
    return Part(manifest, np.array(tokens, np.int32).reshape(shape), np.array(copied, bool).reshape(shape), dropped)


def test_parts_are_gathered_in_any_order() -> None:
    """Seven rows in parts of three, two and two, of which two, none and two are kept."""
    parts = (
        part(0, 0, 3, [[5, 0], [7, 2**31 - 1]], [[False, False], [True, False]]),
        part(1, 3, 5, [], []),
        part(2, 5, 7, [[1, 2], [3, 4]], [[False, False], [True, True]]),
    )
    for order in itertools.permutations(parts):
        gathered = GatheredRows(7, 2)
        for one in order:
            gathered.add(one)
        tokens, copied = gathered.kept_rows
        assert tokens.tolist() == [[5, 0], [0, 2**31 - 1], [1, 2], [0, 0]]
        assert copied.tolist() == [0, 1, 0, 2]
        assert gathered.kept_rows[0].tolist() == tokens.tolist()  # asked twice
        assert (gathered.tokens, gathered.tokens_copied) == (22 + 2**31 - 1, 14)
        assert gathered.texts.tolist() == [4, 3]
        assert [manifest.part for manifest in gathered.manifests] == [0, 1, 2]
        assert gathered.dropped["row"].to_list() == [2, 3, 4]
