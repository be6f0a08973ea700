"""When a shard is slow or hung: just inside and just outside each limit."""

import pytest

from jobs.monitor.pace import Medians, alert_for, medians_of, speed_of
from tests.jobs.monitor.test_overview import shard

USUAL = Medians(shards=4, speed=1.0, chunk_seconds=20.0, start_seconds=90.0)


def test_speed_is_predicted_seconds_per_second() -> None:
    """Half of 200 predicted seconds in 50 s is a speed of 2; of three shards, the median."""
    assert speed_of(shard(seconds=50.0)) == 2.0
    assert speed_of(shard(seconds=50.0, predicted_seconds=50.0)) == 0.5
    assert speed_of(shard(done=0)) is None
    found = medians_of([shard(0, 50.0), shard(1, 100.0), shard(2, 400.0, start_seconds=70.0), shard(3, done=0)])
    assert found == Medians(shards=3, speed=1.0, chunk_seconds=20.0, start_seconds=70.0)
    assert medians_of([shard(done=0)]) == Medians(0, None, None, None)


@pytest.mark.parametrize(("speed", "alert"), [(0.3, "slow"), (0.59, "slow"), (0.61, ""), (1.2, "")])
def test_a_shard_is_slow_below_six_tenths_of_the_median(speed: float, alert: str) -> None:
    assert alert_for(shard(seconds=100.0 / speed), 1.0, USUAL, None) == alert
    assert alert_for(shard(seconds=100.0 / speed), 1.0, Medians(3, 1.0, 20.0, 90.0), None) == ""


@pytest.mark.parametrize(("seconds", "alert"), [(15.0, ""), (29.0, ""), (31.0, "slow"), (60.0, "slow")])
def test_a_shard_is_not_slow_in_its_first_30_seconds(seconds: float, alert: str) -> None:
    """At three tenths of the median speed."""
    assert alert_for(shard(seconds=seconds, predicted_seconds=0.6 * seconds), 1.0, USUAL, None) == alert


@pytest.mark.parametrize(
    ("usual", "predicted", "limit"),
    [
        (20.0, 200.0, 300.0),  # five minutes at least
        (100.0, 200.0, 500.0),  # five usual chunks
        (20.0, 2000.0, 1000.0),  # five predicted chunks, of which the shard has ten
        (None, 200.0, 300.0),
    ],
)
def test_a_shard_is_hung_after_five_chunks(usual: float | None, predicted: float, limit: float) -> None:
    medians = Medians(4, None, usual, 90.0)
    one = shard(predicted_seconds=predicted)
    assert alert_for(one, limit - 1, medians, None) == ""
    assert alert_for(one, limit + 1, medians, None) == "hung"


@pytest.mark.parametrize(
    ("start", "predicted", "limit"),
    [
        (None, 200.0, 600.0),  # ten minutes at least
        (90.0, 200.0, 600.0),
        (90.0, 2000.0, 1450.0),  # five starts of 90 s and five chunks of 200 s
        (200.0, 200.0, 1100.0),
    ],
)
def test_a_shard_is_hung_after_five_starts(start: float | None, predicted: float, limit: float) -> None:
    medians = Medians(4, 1.0, 20.0, start)
    one = shard(done=0, predicted_seconds=predicted)
    assert alert_for(one, limit - 1, medians, None) == ""
    assert alert_for(one, limit + 1, medians, None) == "hung"
