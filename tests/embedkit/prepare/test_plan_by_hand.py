"""Settings, shards and chunks of small plans, computed by hand; rounding just inside and just outside its tolerance."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import pytest
from msgspec import structs

from embedkit.documents.schema import FORMAT, Device, EngineSettings, FileRecord, Plan, PlanShard, Request, ReusedRun
from embedkit.errors import EmbedkitError
from embedkit.prepare.cost import CostModel
from embedkit.prepare.part_borders import mean_part_bytes, part_borders
from embedkit.prepare.plan import (
    chunk_borders,
    cut_shards,
    engine_settings,
    is_same_plan,
    shard_borders,
    with_stored_costs,
)

MIB = 1 << 20
MS = CostModel("cpu", linear_flops=80e6, attention_flops=0.0)
"""A token takes 1 ms, and each text 1 ms more."""
SECONDS = CostModel("cpu", linear_flops=80e9, attention_flops=0.0)
"""A token takes 1 s, and each text 1 ms more."""


def request(device: Device = "cpu", max_length: int = 512) -> Request:
    return Request(
        data=(),
        data_revision=None,
        config=None,
        split=None,
        messages_column="messages",
        source_column="dataset_source",
        sample_size=None,
        random_seed=None,
        views=("combined",),
        max_length=max_length,
        shards=None,
        texts="all",
        model_files=(),
        model_revision=None,
        tokenizers_version="",
        engine="vllm",
        device=device,
        dtype="float32",
    )


@pytest.mark.parametrize(
    ("device", "limit", "budget"),
    [
        ("cpu", 1, 8_192),
        ("cpu", 4_096, 8_192),
        ("cpu", 8_192, 8_192),
        ("cpu", 8_193, 8_193),
        ("cpu", 16_384, 16_384),
        ("cuda", 32_768, 65_536),
        ("cuda", 65_537, 65_537),
        ("cuda", 131_072, 131_072),
    ],
)
def test_a_text_of_the_limit_fits_the_token_budget(device: Device, limit: int, budget: int) -> None:
    """vLLM hangs on a text that does not fit it."""
    found = engine_settings(request(device, limit))
    assert (found.token_budget, found.max_length) == (budget, limit)
    assert (found.chunk_tokens, found.max_sequences) == {"cpu": (16_384, 256), "cuda": (8_000_000, 1024)}[device]
    assert (found.device, found.dtype) == (device, "float32")


@pytest.mark.parametrize(("seconds", "eager"), [(30.0, True), (59.9, True), (60.0, False), (120.0, False)])
def test_shards_of_a_minute_are_compiled_on_a_gpu(seconds: float, eager: bool) -> None:
    assert engine_settings(request("cuda"), seconds).eager is eager
    assert engine_settings(request("cpu"), seconds).eager


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("seconds", [10.0, 1800.0])
def test_copied_vectors_decide_whether_it_is_compiled(eager: bool, seconds: float) -> None:
    """On a GPU, and only if there are any."""
    reuse = (ReusedRun(success_sha256="0" * 64, eager=eager, engines=()),)
    asked = structs.replace(request("cuda"), reuse=reuse)
    assert engine_settings(asked, seconds).eager is eager
    assert engine_settings(asked, seconds, copies=False).eager is (seconds < 60)
    assert engine_settings(structs.replace(asked, device="cpu"), seconds).eager


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_earlier_plan_decides_where_rounding_would(eager: bool, sign: int) -> None:
    """60 s to 0.6 billionths is as the earlier plan has it; a difference of 1.6 billionths is real."""
    earlier = structs.replace(engine_settings(request("cuda")), eager=eager)
    assert engine_settings(request("cuda"), 60 * (1 + sign * 0.6e-9), earlier).eager is eager
    assert engine_settings(request("cuda"), 60 * (1 + sign * 1.6e-9), earlier).eager is (sign < 0)


def test_chunks_have_at_most_their_tokens_or_one_row() -> None:
    """Rows of 5, 5, 5, 20, 1 and 1 tokens in chunks of 10: two rows fill one, and the row of 20 is one alone."""
    sums = np.cumsum([0, 5, 5, 5, 20, 1, 1])
    assert chunk_borders(sums, 0, 6, 10) == (0, 2, 3, 4, 6)
    assert chunk_borders(sums, 0, 6, 9) == (0, 1, 2, 3, 4, 6)
    assert chunk_borders(sums, 1, 5, 10) == (1, 3, 4, 5)
    assert chunk_borders(sums, 2, 2, 10) == (2,)


def test_shards_and_chunks_of_six_rows() -> None:
    """They take 10, 5, 5, 10, 2 and 2 ms: 15 and 19 are more equal than 20 and 14."""
    first, second = cut_shards(np.array([[9], [4], [4], [9], [1], [1]]), MS, 2, 1, 10)
    assert (first.start, first.stop, first.tokens, first.chunks) == (0, 2, 13, (0, 1, 2))
    assert (second.start, second.stop, second.tokens, second.chunks) == (2, 6, 15, (2, 3, 5, 6))
    assert (first.cost_seconds, second.cost_seconds) == (pytest.approx(0.015), pytest.approx(0.019))


def test_an_empty_text_costs_nothing() -> None:
    """Two views: rows of 3 and 0 tokens, and of 1 and 1, take 4 ms each. A chunk counts tokens of both views."""
    shards = cut_shards(np.array([[3, 0], [1, 1]]), MS, 2, 1, 10)
    assert [shard.cost_seconds for shard in shards] == [pytest.approx(0.004)] * 2
    (shard,) = cut_shards(np.array([[3, 0], [1, 1], [0, 5]]), MS, 1, 1, 5)
    assert (shard.tokens, shard.chunks) == (10, (0, 2, 3))


@pytest.mark.parametrize(
    ("tokens", "gpus", "shards"),
    [
        ([450, 450], 1, 1),  # a quarter of an hour
        ([900] * 4, 1, 3),  # an hour and 4 ms: three, of which two are half an hour
        ([899] * 4, 1, 2),
        ([1000] * 6, 2, 4),
        ([1000] * 9, 8, 8),
        ([1000] * 5, 8, 5),  # no more than rows
    ],
)
def test_shards_by_default_take_half_an_hour_per_gpu(tokens: list[int], gpus: int, shards: int) -> None:
    assert len(cut_shards(np.array(tokens)[:, None], SECONDS, None, gpus, 10**6)) == shards


@pytest.mark.parametrize(
    ("more", "by_itself", "earlier", "kept"),
    [(0.6e-9, 3, 2, True), (1.6e-9, 3, 2, False), (-0.6e-9, 2, 3, True), (-1.6e-9, 2, 3, False), (0.6e-9, 3, 4, False)],
)
def test_an_earlier_plan_keeps_its_number_by_rounding(more: float, by_itself: int, earlier: int, kept: bool) -> None:
    """Four rows of 15 minutes, a little more or less: two shards of half an hour or three, to a billionth."""
    cost = CostModel("cpu", linear_flops=80e9 * (900 * (1 + more) - 1e-3), attention_flops=0.0)
    rows = np.ones((4, 1), np.int64)
    assert len(cut_shards(rows, cost, None, 1, 10)) == by_itself
    found = cut_shards(rows, cost, None, 1, 10, cut_shards(rows, cost, earlier, 1, 10))
    assert len(found) == (earlier if kept else by_itself)


def plan_shards(borders: Sequence[int]) -> tuple[PlanShard, ...]:
    return tuple(PlanShard(start=a, stop=b, tokens=1, cost_seconds=1.0, chunks=(a, b)) for a, b in pairwise(borders))


@pytest.mark.parametrize(
    ("earlier", "kept"),
    [
        ((0, 4, 8), True),
        ((0, 3, 8), True),  # one row on the other side
        ((0, 5, 8), True),
        ((0, 2, 8), False),
        ((0, 6, 8), False),
        ((0, 3, 9), False),
        ((0, 4, 6, 8), False),
    ],
)
def test_a_border_may_lie_one_row_aside_in_an_earlier_plan(earlier: tuple[int, ...], kept: bool) -> None:
    """Eight equal rows in two shards. Borders that differ by one row differ by rounding."""
    found = cut_shards(np.full((8, 1), 9), MS, 2, 1, 100, plan_shards(earlier))
    assert [shard.start for shard in found] + [8] == (list(earlier) if kept else [0, 4, 8])


@pytest.mark.parametrize(
    ("seconds", "borders"),
    [
        ((1, 1, 1, 1, 1, 1, 1, 1), (4,)),
        ((1, 1, 1, 1, 1, 1, 1, 1, 1), (3, 6)),
        ((2, 2, 2, 2, 2, 2, 2), (2, 5)),  # shares end at 4.7 and 9.3 of 14: rows before them sum to 4 and 10
        ((1, 1, 1, 9), (3,)),
        ((9, 1, 1, 1), (1,)),
        ((5, 1, 1, 1, 1, 1), (1, 3)),  # the second share ends at 6.7: 7 is nearer than 6
        ((5, 1.25, 1.25, 1.25, 1.25), (1, 2)),  # and here 6.25 is nearer than 7.5
        ((1, 1, 1, 97), (2, 3)),  # a row for each shard
        ((97, 1, 1, 1), (1, 2)),
        ((1, 1, 1, 1, 97, 1, 1), (4, 5, 6)),
        ((9, 0, 0, 0), (1, 2)),
        ((0, 0, 0, 9), (2, 3)),
        ((0, 0, 0), (1, 2)),
    ],
)
def test_borders_lie_at_the_nearest_equal_shares(seconds: Sequence[float], borders: Sequence[int]) -> None:
    found = shard_borders(np.cumsum([0.0, *seconds]), len(borders) + 1)
    assert found == [0, *borders, len(seconds)]


def test_more_shards_than_rows_are_refused() -> None:
    with pytest.raises(EmbedkitError, match=r"^--shards 3, but only 2 rows were kept; choose at most 2 shards$"):
        cut_shards(np.array([[1], [1]]), MS, 3, 1, 10)


SETTINGS = EngineSettings(
    device="cpu", dtype="float32", max_length=8, chunk_tokens=9, token_budget=9, max_sequences=9, eager=True
)


def plan(*costs: float) -> Plan:
    shards = tuple(
        PlanShard(start=i, stop=i + 1, tokens=1, cost_seconds=cost, chunks=(i, i + 1)) for i, cost in enumerate(costs)
    )
    return Plan(
        format=FORMAT,
        request_sha256="",
        rows=9,
        rows_chosen=9,
        rows_kept=len(costs),
        dropped={},
        dropped_rows=FileRecord(name="dropped_rows.parquet", bytes=0, sha256=""),
        tokens=1,
        parts=(),
        shards=shards,
        order="longest_first",
        settings=SETTINGS,
    )


def test_stored_costs_have_seven_digits() -> None:
    stored = with_stored_costs(plan(1234.56789, 0.00012345678, 2e9 / 3))
    assert [shard.cost_seconds for shard in stored.shards] == [1234.568, 0.0001234568, 666_666_700.0]


@pytest.mark.parametrize("sign", [1, -1])
def test_costs_within_a_millionth_are_one_plan(sign: int) -> None:
    """Inside it is the same plan, outside another one; so is a plan with one shard more."""
    assert is_same_plan(plan(100.0, 3.0), plan(100.0 * (1 + sign * 0.6e-6), 3.0))
    assert not is_same_plan(plan(100.0, 3.0), plan(100.0 * (1 + sign * 1.6e-6), 3.0))
    assert not is_same_plan(plan(100.0, 3.0), plan(100.0, 3.0 * (1 + sign * 1.6e-6)))
    assert not is_same_plan(plan(100.0), plan(100.0, 3.0))
    assert not is_same_plan(plan(100.0, 3.0), plan(100.0))


def test_parts_have_at_most_16384_rows_and_128_mib() -> None:
    small = np.full(200_000, 10, np.float32)
    assert np.diff(part_borders(small))[:6].tolist() == [16_384, 16_384, 16_384, 16_384, 16_384, 14_760]
    assert part_borders(small[:10_000]) == (0, 4096, 8192, 10_000)
    assert part_borders(small[:40_000], even=True) == (*range(0, 40_000, 4096), 40_000)
    large = np.array([64 * MIB, 64 * MIB, 1, 127 * MIB, 300 * MIB, 5], np.float32)
    assert part_borders(large, even=True) == (0, 2, 4, 5, 6)
    assert part_borders(np.zeros(0, np.float32)) == (0,)


def test_parts_near_the_end_have_an_eighth_of_what_is_left() -> None:
    """And 32 MiB at least, the last one excepted. A larger row is a part."""
    rows = np.full(1024, MIB, np.float32)
    parts = (128, 112, 98, 85, 75, 65, 57, 50, 44, 38, 34, 32, 32, 32, 32, 32, 32, 32, 14)
    assert part_borders(rows) == (0, *accumulate(parts))
    assert part_borders(rows[:64]) == (0, 32, 64)
    assert part_borders(np.array([64 * MIB, 64 * MIB, 1, 127 * MIB, 5], np.float32)) == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(("mib", "parts"), [(1, 1 / 32), (256, 8), (1024, 19.0904), (2048, 27.0904)])
def test_bytes_of_a_part_in_the_mean(mib: int, parts: float) -> None:
    """The last 256 MiB are 8 parts, and those that get smaller are 8 ln 4."""
    assert mib * MIB / mean_part_bytes(mib * MIB) == pytest.approx(parts, rel=1e-5)
