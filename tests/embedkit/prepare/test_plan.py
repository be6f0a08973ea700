"""Shards of equal cost, chunks of bounded tokens, covering every row once."""

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.documents.codec import digest, read, write
from embedkit.documents.schema import Plan, RunConfig, ShardManifest
from embedkit.errors import EmbedkitError
from embedkit.prepare.cost import CostModel
from embedkit.prepare.plan import (
    chunk_borders,
    cut_shards,
    engine_settings,
    is_same_plan,
    read_plan,
    shard_borders,
    with_stored_costs,
)
from embedkit.prepare.stage import plan_of_shards, prepare
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, write_chats


def sums_of(seconds: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.asarray(seconds, np.float64))])


lengths = st.lists(st.integers(1, 40_000), min_size=1, max_size=300)
COST = CostModel("cuda", linear_flops=8.8e8, attention_flops=114_688.0)


@given(lengths, st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_shards_cover_all_rows_and_none_is_heavy(tokens: list[int], shards: int) -> None:
    shards = min(shards, len(tokens))
    seconds = COST.seconds(np.array(tokens))
    borders = shard_borders(sums_of(seconds), shards)
    assert (borders[0], borders[-1], len(borders)) == (0, len(tokens), shards + 1)
    costs = [seconds[a:b].sum() for a, b in itertools.pairwise(borders)]
    assert min(b - a for a, b in itertools.pairwise(borders)) >= 1
    assert max(costs) <= 1.01 * seconds.sum() / shards + seconds.max()


costs = st.one_of(st.integers(0, 4).map(float), st.floats(1e-6, 1e6))


@given(st.lists(costs, min_size=1, max_size=9), st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_no_other_cut_has_a_lighter_heaviest_shard(seconds: list[float], shards: int) -> None:
    rows, shards = len(seconds), min(shards, len(seconds))

    def heaviest(borders: Sequence[int]) -> float:
        return max(sum(seconds[a:b]) for a, b in itertools.pairwise(borders))

    borders = shard_borders(sums_of(seconds), shards)
    assert (borders[0], borders[-1], len(borders)) == (0, rows, shards + 1)
    assert all(a < b for a, b in itertools.pairwise(borders))
    best = min(heaviest([0, *inner, rows]) for inner in itertools.combinations(range(1, rows), shards - 1))
    assert heaviest(borders) <= best + 1e-11 * sum(seconds)


@given(lengths, st.integers(1, 100_000))
@settings(max_examples=200, deadline=None)
def test_chunks_cover_the_shard_and_fit(tokens: list[int], chunk_tokens: int) -> None:
    sums = np.concatenate([[0], np.cumsum(tokens)])
    start = len(tokens) // 3
    borders = chunk_borders(sums, start, len(tokens), chunk_tokens)
    assert (borders[0], borders[-1]) == (start, len(tokens))
    for a, b in itertools.pairwise(borders):
        assert a < b
        assert b - a == 1 or sum(tokens[a:b]) <= chunk_tokens


def test_shards_by_default_take_half_an_hour() -> None:
    tokens = np.full(20_000, 9_700)
    hours = COST.seconds(tokens).sum() / 3600
    shards = cut_shards(tokens[:, None], COST, None, 8, 8_000_000)
    assert len(shards) % 8 == 0
    assert len(shards) - 8 < hours * 2 <= len(shards)
    assert sum(shard.tokens for shard in shards) == tokens.sum()


def test_more_shards_than_rows_is_an_error() -> None:
    with pytest.raises(EmbedkitError, match="--shards 4, but only 3 rows were kept"):
        cut_shards(np.array([[1], [2], [3]]), COST, 4, 1, 100)


def test_cost_follows_the_measured_rates() -> None:
    """The model's seconds for the measured corpora's mean lengths are near the measured rates (one H200)."""
    for tokens, rate in ((203, 410_269), (2187, 322_143), (7859, 232_768)):
        predicted = tokens / COST.seconds(np.array([tokens]))[0]
        assert predicted == pytest.approx(rate, rel=0.35)


def test_equal_rows_are_worse_than_equal_cost() -> None:
    """Fault 2 of the replaced scripts: with shards of equal row counts the slowest decides."""
    tokens = np.sort(np.random.default_rng(0).lognormal(8.8, 0.85, 20_000).astype(np.int64).clip(16, 32_768))
    seconds = COST.seconds(tokens)
    borders = shard_borders(sums_of(seconds), 8)
    by_cost = max(seconds[a:b].sum() for a, b in itertools.pairwise(borders))
    by_rows = max(part.sum() for part in np.array_split(seconds, 8))
    assert by_cost <= 1.01 * seconds.sum() / 8
    assert by_rows > 1.5 * by_cost


def test_only_long_shards_are_compiled_on_a_gpu(tmp_path: Path, tiny_qwen: Path) -> None:
    """What is decided is in the plan, so that all tasks of a run do the same."""
    data = write_chats(tmp_path / "d.parquet", [chat("river", "stone " * 50) for _ in range(40)])
    asked = ("--dataset", data, "--model", tiny_qwen, "--engine", "vllm", "--device", "cuda", "--output-dir", tmp_path)
    embedkit("prepare", *asked, "--run-name", "short")
    run = RunFolder(tmp_path / "short")
    config = read(run.config, RunConfig)
    assert read_plan(run, config).settings.eager
    assert not engine_settings(config.request).eager
    assert [engine_settings(config.request, seconds).eager for seconds in (10, 1800)] == [True, False]
    on_a_cpu = msgspec.structs.replace(config.request, device="cpu")
    assert engine_settings(on_a_cpu, 1800).eager


@given(st.lists(st.integers(1, 40_000), min_size=3, max_size=60), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_costs_rounded_on_another_cpu_keep_the_plan(tokens: list[int], shards: int, seed: int) -> None:
    """np.log differs in the last digits between vector widths; here the costs do, at random."""

    class OtherCpu(CostModel):
        def seconds(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            ulps = np.random.default_rng(seed).integers(-2, 3, tokens.shape)
            return super().seconds(tokens) * (1 + ulps * np.finfo(np.float64).eps)

    other = OtherCpu("cuda", COST.linear_flops, COST.attention_flops)
    counts = np.array(tokens * 2)[:, None]
    shards = min(shards, len(counts))
    cut = cut_shards(counts, COST, shards, 1, 50_000)
    again = cut_shards(counts, other, shards, 1, 50_000, cut)
    assert [shard.chunks for shard in again] == [shard.chunks for shard in cut]


def test_a_plan_with_other_last_digits_is_the_runs(prepared_run: RunFolder) -> None:
    """As on a node with another CPU. A plan whose costs, borders or tokens differ is refused."""
    run, config = prepared_run, read(prepared_run.config, RunConfig)
    plan = read_plan(run, config)
    first = msgspec.structs.replace(plan.shards[0], tokens=plan.shards[0].tokens + 1)
    digits, border = with_costs(plan, 1 + 1e-14), with_moved_border(plan)
    assert is_same_plan(plan, digits)
    assert not is_same_plan(plan, border)
    assert not is_same_plan(plan, msgspec.structs.replace(plan, shards=(first, *plan.shards[1:])))
    for other in (digits, border):
        write(run.plan, other)
        before = run.plan.read_bytes()
        with nullcontext() if other is digits else pytest.raises(EmbedkitError, match="not the plan that this"):
            prepare(run, workers=1)
        assert run.plan.read_bytes() == before


def with_moved_border(plan: Plan) -> Plan:
    """Give the last row of the first shard to the second."""
    first, second, *others = plan.shards
    border = first.stop - 1
    first = msgspec.structs.replace(first, stop=border, chunks=(*first.chunks[:-1], border))
    second = msgspec.structs.replace(second, start=border, chunks=(border, *second.chunks[1:]))
    return msgspec.structs.replace(plan, shards=(first, second, *others))


def with_costs(plan: Plan, factor: float) -> Plan:
    shards = (msgspec.structs.replace(shard, cost_seconds=shard.cost_seconds * factor) for shard in plan.shards)
    return msgspec.structs.replace(plan, shards=tuple(shards))


def test_a_plan_is_made_again_to_the_byte(damaged_run: RunFolder) -> None:
    """On another CPU too. Else every finished shard would belong to another plan once plan.json is lost."""
    plan = read_plan(damaged_run, read(damaged_run.config, RunConfig))
    assert with_stored_costs(with_costs(plan, 1 + 1e-14)) == with_stored_costs(plan) == plan
    # An earlier version stored all digits of the costs, and a shard was embedded for its plan.
    exact = with_costs(plan, 1 + 1e-8)
    assert plan_of_shards(damaged_run, exact, lambda: exact) == plan
    path = damaged_run.shard_manifest(1)
    write(path, msgspec.structs.replace(read(path, ShardManifest), plan_sha256=digest(exact)))
    damaged_run.shard_manifest(0).unlink()
    assert plan_of_shards(damaged_run, exact, lambda: exact) == exact
    assert is_same_plan(exact, plan)
