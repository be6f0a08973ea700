"""How much time a warning leaves, and the arithmetic of a stop, with answers as of scontrol."""

import re
import signal
import time
from pathlib import Path

import pytest

from embedkit.embed.stop_at_chunk import ChunkStatus
from embedkit.run import RunFolder
from jobs.node import time_left as module
from jobs.node.time_left import LEAST_SECONDS, TimeLeft, advice, describe_warning, spent, time_left
from jobs.slurm.job_times import JobTimes, parse_job_times
from jobs.slurm_environment import SCRIPT_STARTED
from tests.conftest import ROOT

WARNED = TimeLeft(after=55, limit=180, left=125, signal_seconds=100)


def answer(start: str, end: str, limit: str = "00:03:00", preempted: str = "None") -> JobTimes:
    return parse_job_times(
        f"JobId=20 ArrayJobId=20 ArrayTaskId=1 JobState=RUNNING RunTime=00:00:55 TimeLimit={limit} StartTime={start} "
        f"EndTime={end} PreemptEligibleTime={start} PreemptTime={preempted} Command=/run/StartTime=x\n"
    )


def test_times_of_a_job() -> None:
    start, end = "2026-11-23T02:00:00", "2026-11-23T02:03:00"
    times = answer(start, end)
    assert (times.seconds, times.is_preempted) == (180, False)
    assert answer(start, "2027-11-23T02:00:00", "UNLIMITED").ends is None
    assert answer(start, "Unknown").seconds is None
    grace = answer(start, "2026-11-23T02:01:00", "UNLIMITED", preempted="2026-11-23T02:00:30")
    assert (grace.seconds, grace.is_preempted) == (60, True)
    assert not answer(start, end, preempted="2026-11-23T01:00:00").is_preempted  # an earlier start


@pytest.mark.parametrize(("clock", "delay"), [(0, 0), (0, 30), (-300, 0), (300, 0)])
def test_time_left_with_clocks_minutes_off(
    clock: int, delay: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The controller's clock differs from the node's by so many seconds. A prolog takes `delay` seconds."""
    now = time.time() + clock
    monkeypatch.setattr(module, "job_times", lambda _: JobTimes(now - 55, now + 125))
    monkeypatch.setattr(module, "seconds_since_start", lambda: 55.0 - delay)
    found = time_left(RunFolder(tmp_path))
    assert (found.left, found.after) == (pytest.approx(125, abs=1), pytest.approx(55, abs=1))


def test_a_slow_image_does_not_hide_a_clock_that_is_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The node's clock is 50 s behind, and the launcher started Python 60 s after the job."""
    now = time.time() + 50
    monkeypatch.setattr(module, "job_times", lambda _: JobTimes(now - 100, now + 80))
    monkeypatch.setattr("psutil.Process.create_time", lambda _: time.time() - 40)
    monkeypatch.setenv(SCRIPT_STARTED, str(int(time.time() - 100)))
    found = time_left(RunFolder(tmp_path))
    assert (found.left, found.after) == (pytest.approx(80, abs=2), pytest.approx(100, abs=2))


def test_without_an_answer_the_environment_or_the_least_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert time_left(RunFolder(tmp_path)).left == LEAST_SECONDS
    for name, at in (("START", -55), ("END", 125)):
        monkeypatch.setenv(f"SLURM_JOB_{name}_TIME", str(int(time.time() + at)))
    monkeypatch.setattr(module, "seconds_since_start", lambda: 54.0)
    assert time_left(RunFolder(tmp_path)).left == pytest.approx(125, abs=2)


@pytest.mark.parametrize(
    ("times", "needs", "seconds"),
    [
        (WARNED, 33.0, 110.0),
        (WARNED, None, 110.0),  # the first chunk has not begun
        (WARNED, 109.0, 110.0),
        (WARNED, 111.0, 0.0),
        (TimeLeft(after=20, limit=30, left=10, is_preempted=True), 1.0, 0.0),
        (TimeLeft(after=20, limit=80, left=60, is_preempted=True), 30.0, 45.0),
        (TimeLeft(after=20, limit=3600, left=3580, signal_seconds=120), 5.0, 60.0),  # from a person
        (TimeLeft(after=20, limit=3600, left=3580, signal_seconds=120), 200.0, 400.0),
        (TimeLeft(after=20), 70.0, 140.0),  # no limit
    ],
)
def test_which_chunks_fit(times: TimeLeft, needs: float | None, seconds: float) -> None:
    assert times.for_chunk(needs) == seconds


def test_what_a_warning_says() -> None:
    assert describe_warning(WARNED, [20.0, 12.0], True) == (
        "USR2: 125 s left, the chunk in hand needs about 20 s more: it is finished first"
    )
    assert describe_warning(WARNED, [140.0], False).endswith("needs about 140 s more: that does not fit")
    late = TimeLeft(after=171, limit=180, left=9, signal_seconds=100)
    assert describe_warning(late, [0.4], False) == (
        "USR2: 9 s left (15 s are kept for the requeue), the chunk in hand needs about 0 s more: that does not fit"
    )
    assert describe_warning(WARNED, [None], True).endswith("the first chunk has not begun: it is embedded if it fits")


def test_the_arithmetic_of_a_stop() -> None:
    now = time.monotonic()
    times = TimeLeft(after=55, limit=180, left=125, signal_seconds=100, at=now)
    status = ChunkStatus(began=now - 5, first=now - 10, seconds=33.0, is_measured=True)
    assert spent(signal.SIGUSR2, times, status) == "start 45 s, one chunk 33 s, warned after 55 s of 180 s"
    assert advice(signal.SIGUSR2, times) == ": a longer time (rerun --time), or a smaller signal_seconds (100 now)"
    least = TimeLeft(after=55, limit=180, left=90, signal_seconds=60, at=now)
    assert advice(signal.SIGUSR2, least) == ": a longer time (rerun --time)"
    slow = ChunkStatus(began=now - 90, first=now - 90, seconds=33.0, is_measured=False)
    assert "one chunk more than 90 s" in spent(signal.SIGUSR2, times, slow)
    starting = ChunkStatus(began=now - 50, first=None, seconds=33.0, is_measured=False)
    assert re.match(r"start more than 55 s, one chunk 33 s, ", spent(signal.SIGUSR2, times, starting))
    preempted = TimeLeft(after=20, limit=50, left=30, is_preempted=True, at=now)
    assert spent(signal.SIGUSR2, preempted, None) == "start more than 20 s, stopped after 20 s by preemption"
    assert "not preempted" in advice(signal.SIGTERM, TimeLeft(after=20))


@pytest.mark.parametrize("version", ["20.11", "22.05", "24.11", "26.05"])
def test_times_in_recorded_answers(version: str) -> None:
    def recorded(name: str) -> JobTimes:
        return parse_job_times((ROOT / "tests" / "data" / "slurm" / version / f"{name}.txt").read_text())

    assert recorded("ending-time").seconds == pytest.approx(90, abs=30)  # over its limit of one minute
    assert recorded("job-held") == JobTimes()
    preempted = recorded("ending-preempted")
    assert (preempted.ends, preempted.is_preempted) == (None, False)  # that start is over
