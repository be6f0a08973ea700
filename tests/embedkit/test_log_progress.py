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
    """At once for the first progress, then after 30 s, and at the end."""
    caplog.set_level(logging.INFO)
    progress = LogProgress(logging.getLogger("t"), "shard 3", 1000, "tokens")
    for seconds, amount in ((10, 100), (15, 100), (14, 50), (2, 50), (29, 100), (0.5, 600)):
        clock.now += seconds
        progress.add(amount)
    assert caplog.messages == [
        "shard 3: 100 of 1000 tokens, 10 a second, 90 s left",
        "shard 3: 300 of 1000 tokens, 7 a second, 96 s left",
        "shard 3: 1000 of 1000 tokens, 14 a second, 0 s left",
    ]


def test_progress_in_no_time_divides_by_nothing(clock: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    LogProgress(logging.getLogger("t"), "prepare", 0, "rows").add(0)
    assert caplog.messages == ["prepare: 0 of 0 rows, 0 a second, 0 s left"]
