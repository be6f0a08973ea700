"""Lines of progress at known times: a clock is moved by hand."""

import logging
from types import SimpleNamespace

import pytest

import embedkit.log_progress
from embedkit.log_progress import LogProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time of the module, in seconds."""
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(embedkit.log_progress, "time", clock)
    return clock


def test_a_line_every_half_minute_has_rate_and_time_left(
    clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """At once for the first progress, without a time, then after 30 s, and at the end."""
    caplog.set_level(logging.INFO)
    progress = LogProgress(logging.getLogger("t"), "shard 3", 1000, "tokens")
    for seconds, amount in ((10, 100), (15, 150), (14, 140), (2, 20), (29, 90), (0.5, 500)):
        clock.now += seconds
        progress.add(amount)
    assert caplog.messages == [
        "shard 3: 100 of 1000 tokens",
        "shard 3: 410 of 1000 tokens, 10 a second, 59.0 s left",
        "shard 3: 1000 of 1000 tokens in 70.5 s",
    ]


def test_long_times_are_in_minutes_and_hours(clock: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    """No line has 76440 s."""
    caplog.set_level(logging.INFO)
    progress = LogProgress(logging.getLogger("t"), "prepare", 1000, "rows")
    for seconds, amount in ((1, 10), (5400, 90), (6000, 100), (6000, 100), (39_000, 650), (3000, 50)):
        clock.now += seconds
        progress.add(amount)
    assert [line.partition("rows")[2] for line in caplog.messages] == [
        "",
        ", 15.0 h left",
        ", 13.3 h left",
        ", 11.7 h left",
        ", 50.0 min left",
        " in 16.5 h",
    ]


def test_uneven_units_have_no_time(clock: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = LogProgress(logging.getLogger("t"), "findings", 3, "kinds", is_even=False)
    for _ in range(3):
        clock.now += 40
        progress.add(1)
    assert caplog.messages == ["findings: 1 of 3 kinds", "findings: 2 of 3 kinds", "findings: 3 of 3 kinds in 2.0 min"]


def test_progress_in_no_time_divides_by_nothing(clock: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    LogProgress(logging.getLogger("t"), "prepare", 0, "rows").add(0)
    progress = LogProgress(logging.getLogger("t"), "prepare", 9, "rows")
    for _ in range(3):
        progress.add(3)
    assert caplog.messages == [
        "prepare: 0 of 0 rows in 0.0 s",
        "prepare: 3 of 9 rows",
        "prepare: 9 of 9 rows in 0.0 s",
    ]
