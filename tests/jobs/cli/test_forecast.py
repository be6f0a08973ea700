"""Hours of a dry run, computed by hand from predicted seconds, what is durable and how many shards run at once."""

import msgspec
import pytest

from embedkit.forecast.estimate import Estimate
from jobs.cli.forecast import _amounts, _schedule
from jobs.monitor.prediction import Scale
from tests.jobs.monitor.test_prediction import shard

ESTIMATE = Estimate(
    basis="footers",
    at_most=False,
    rows_chosen=1200,
    rows=1000,
    tokens=100_000,
    seconds=36_000.0,
    text_bytes=0,
    sources=1,
    parts=1,
)
SLOWER = Scale(1.5, "as measured")


def test_five_equal_shards_take_three_waves_of_two() -> None:
    """Ten hours by the plan are fifteen on this GPU: three for each shard."""
    schedule = _schedule(ESTIMATE, 5, 2, SLOWER, ())
    assert (schedule.left, schedule.at_once, schedule.wall) == ([10_800.0] * 5, 2, 32_400.0)
    lines = _amounts(ESTIMATE, 5, "GPU", SLOWER, (), schedule)
    assert lines[0] == "rows     about 1,000 kept of 1,200 chosen"
    assert lines[1] == "tokens   about 100,000, about 20,000 per shard"
    assert lines[2].startswith("embed    about 15.0 GPU hours, 9.0 hours with 2 at once: ")
    assert lines[3] == "speed    as measured"


def test_shards_that_have_begun_need_only_the_rest() -> None:
    """Of 7,200 s each: half of the first is durable, nothing of the second, all of the third."""
    begun = [shard(number, done, 1.0, predicted=7200.0) for number, done in ((0, 5), (1, 0), (2, 10))]
    schedule = _schedule(ESTIMATE, 3, 8, SLOWER, begun)
    assert (schedule.left, schedule.at_once, schedule.wall) == ([5_400.0, 10_800.0], 2, 10_800.0)
    lines = _amounts(ESTIMATE, 3, "GPU", Scale(1.5, ""), begun, schedule)
    assert lines[2].startswith("embed    about 4.5 GPU hours left of 15.0, 3.0 hours with 2 at once: ")
    assert len(lines) == 3
    done = _schedule(ESTIMATE, 1, 8, SLOWER, [shard(0, 10, 1.0)])
    assert (done.left, done.at_once, done.wall) == ([], 0, 0.0)


@pytest.mark.parametrize(
    ("basis", "at_most", "word"), [("plan", False, ""), ("footers", True, "at most "), ("sizes", False, "about ")]
)
def test_how_sure_a_number_is_goes_before_it(basis: str, at_most: bool, word: str) -> None:
    estimate = msgspec.structs.replace(ESTIMATE, basis=basis, at_most=at_most, rows_chosen=9, rows=8, tokens=70)
    lines = _amounts(estimate, 2, "GPU", SLOWER, (), None)
    assert lines == [f"rows     {word}8 kept of 9 chosen", f"tokens   {word}70, {word}35 per shard"]
