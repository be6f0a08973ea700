"""Numbers of a report, computed by hand from one history; quantiles of its shards from known columns."""

from typing import Any

import msgspec
import pytest

from jobs.report.compute import make_report
from jobs.report.schema import ShardReport, Spent
from jobs.report.sums import cpus_used, largest, ratio, total
from jobs.report.text import SHARD_COLUMNS, quantile_rows
from tests.support.histories import GIB, attempt_of, inputs, manifest, observations, submission

EMBED = submission("embed", "7", array="0-1", gpus=2)


def test_device_time_of_a_shard_that_failed_once() -> None:
    """On two GPUs: 10 s until it failed and 40 s until it finished are 100 GPU seconds.

    Its five chunks took 4 s each. Two of them are from the attempt that failed, which therefore lost 12 s of 20. Then
    1 s to start, 0.5 s for texts, 0.5 s for the canary; 66 s are neither.
    """
    lane = [
        attempt_of("7_0", 10, 20, "failed", cpu_seconds=15.0),
        attempt_of("7_0", 30, 70, restart=1, cpu_seconds=85.0),
    ]
    report = make_report(inputs(observations({0: lane}, [EMBED]), 2, {0: manifest(0, "7_0-1-ab", 4.0, adopted=2)}))
    shard, other = report.shards
    assert (shard.wall_seconds, shard.device_seconds, shard.queue_seconds) == (50.0, 100.0, 10.0 + 10.0)
    assert shard.spent == Spent(embedded=20.0, lost=12.0, starting=1.0, waiting=0.5, checking=0.5, other=66.0)
    assert (shard.embedded_seconds, shard.embedded_share, shard.tokens_per_second) == (20.0, 0.2, 50.0)
    assert (shard.cpus_used, shard.memory_peak, shard.cpus_requested) == (2.0, GIB, 4)
    assert (other.tokens_done, other.embedded_seconds, other.device_seconds, other.spent) == (0, None, None, None)
    assert (report.tokens, report.tokens_done, report.tokens_per_second) == (2000, 1000, 50.0)
    assert (report.predicted_seconds, report.cost_ratio, report.device_ratio) == (20.0, 2.0, 10.0)
    assert (report.embedded_share, report.spent) == (0.2, shard.spent)
    embed = report.stages[1]
    assert (embed.attempts, embed.attempts_lost, embed.lost_wall_seconds) == (2, 1, 10.0)
    assert (embed.elapsed_seconds, embed.wall_seconds, embed.queue_longest) == (60.0, 50.0, 10.0)


@pytest.mark.parametrize(("chunk_seconds", "is_known"), [(20.6, True), (21.0, False)])
def test_embedding_may_exceed_its_attempts_by_rounding(chunk_seconds: float, is_known: bool) -> None:
    """100 s may be 104 s: 2 % and two seconds. With 103 s nothing is missing; with 105 s there were other attempts."""
    one = submission("embed", "7", array="0", gpus=1)
    observed = observations({0: [attempt_of("7_0", 0, 100)]}, [one])
    report = make_report(inputs(observed, 1, {0: manifest(0, "7_0-0-ab", chunk_seconds)}))
    assert (report.shards[0].spent is not None) is is_known
    if is_known:
        assert report.shards[0].spent == Spent(
            embedded=100.0, lost=0.0, starting=0.0, waiting=0.0, checking=0.0, other=0.0
        )


SHARD = ShardReport(
    shard=0,
    state="finished",
    tokens=1000,
    tokens_done=1000,
    chunks=5,
    chunks_done=5,
    chunks_adopted=0,
    attempts=1,
    attempts_at_least=False,
    wall_seconds=None,
    queue_seconds=None,
    device_seconds=None,
    embedded_seconds=None,
    embedded_share=None,
    spent=None,
    tokens_per_second=None,
    predicted_seconds=None,
    cpus_requested=None,
    cpus_used=None,
    memory_requested=None,
    memory_peak=None,
    seconds={},
)


def column(name: str, field: str, *values: Any) -> list[str]:
    """The cells of a column: least, median, 90 % and most of these values."""
    rows = quantile_rows([msgspec.structs.replace(SHARD, shard=i, **{field: v}) for i, v in enumerate(values)])
    assert [row[0] for row in rows] == ["least of", "median of", "90 % of", "most of"]
    assert {row[1] for row in rows} == {str(len(values))}
    return [row[SHARD_COLUMNS.index(name)] for row in rows]


def test_quantiles_are_values_of_shards() -> None:
    """Of eleven shards the sixth, the tenth and the last; shards without the number do not count."""
    tens = [70.0, 30, 90, 0, 50, 20, 80, 10, 40, 60, 100]
    assert column("wall", "wall_seconds", *tens) == ["0.0 s", "50.0 s", "90.0 s", "1.7 min"]
    assert column("wall", "wall_seconds", None, *tens, None) == ["0.0 s", "50.0 s", "90.0 s", "1.7 min"]
    assert column("wall", "wall_seconds", 7.0) == ["7.0 s"] * 4
    assert column("wall", "wall_seconds", None, None) == ["-"] * 4
    assert column("wall", "wall_seconds", 1.0, 2.0, 3.0) == ["1.0 s", "2.0 s", "3.0 s", "3.0 s"]


@pytest.mark.parametrize(
    ("name", "field", "values", "cells"),
    [
        ("queued", "queue_seconds", (1.0, 2.0), ("1.0 s", "2.0 s")),
        ("{unit} time", "device_seconds", (60.0, 7200.0), ("60.0 s", "2.0 h")),
        ("embed", "embedded_share", (0.25, 0.5), ("25 %", "50 %")),
        ("tokens/s", "tokens_per_second", (999.6, 123_456.0), ("1,000", "123,456")),
        ("predicted", "predicted_seconds", (1.0, 2.0), ("1.0 s", "2.0 s")),
        ("embedded", "embedded_seconds", (1.0, 2.0), ("1.0 s", "2.0 s")),
        ("CPUs", "cpus_used", (0.25, 3.96), ("0.2", "4.0")),
        ("memory", "memory_peak", (GIB // 2, 3 * GIB), ("0.5 GiB", "3.0 GiB")),
    ],
)
def test_each_column_has_its_own_quantiles(
    name: str, field: str, values: tuple[float, float], cells: tuple[str, str]
) -> None:
    """Least and most of two shards; every other column of numbers is unknown."""
    found = column(name, field, *values)
    assert (found[0], found[-1]) == cells
    rows = quantile_rows([msgspec.structs.replace(SHARD, **{field: value}) for value in values])
    at = SHARD_COLUMNS.index(name)
    assert all(cell == "-" for row in rows for i, cell in enumerate(row) if i > 2 and i != at)


def test_lost_seconds_have_quantiles_too() -> None:
    spent = [Spent(embedded=1, starting=0, waiting=0, checking=0, lost=lost, other=0) for lost in (3.0, 1.0, 2.0)]
    assert column("lost", "spent", *spent) == ["1.0 s", "2.0 s", "3.0 s", "3.0 s"]


def test_sums_leave_out_what_is_unknown() -> None:
    assert (total([1.0, None, 2.5]), total([None]), total([])) == (3.5, None, None)
    assert (largest([1, None, 3]), largest([None]), largest([])) == (3, None, None)
    assert (ratio(3.0, 4.0), ratio(None, 4.0), ratio(3.0, None)) == (0.75, None, None)
    assert (ratio(3.0, 0.0), ratio(0.0, 4.0), ratio(3.0, 0.5e-9), ratio(3.0, 2e-9)) == (None, 0.0, None, 1.5e9)


def test_busy_cpus_are_of_attempts_that_know_them() -> None:
    """60 CPU seconds in 10 s and 20 in 30 s are two CPUs; an attempt without one of the two does not count."""
    observed = observations(
        {
            0: [
                attempt_of("7_0", 0, 10, "failed", cpu_seconds=60.0),
                attempt_of("7_0", 20, 50, restart=1, cpu_seconds=20.0),
                attempt_of("7_0", 60, 99, restart=2),
            ]
        },
        [EMBED],
    )
    attempts = make_report(inputs(observed)).attempts
    assert cpus_used(attempts) == 2.0
    assert cpus_used(attempts[2:]) is None
