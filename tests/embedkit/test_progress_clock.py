"""The time left is right within a factor of two from the first tenth on: for recorded clocks, and for shapes."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from embedkit.progress_clock import ProgressClock, as_rows

RECORDED = Path(__file__).parents[1] / "data" / "progress"
"""Reports of real stages, [seconds, done] each, the last one at their end; README.md says of which."""
FACTOR = 2.0
NEAR_THE_END = 0.02
"""The last share of the time, in which a single report is a large part of what is left."""

Reports = list[tuple[float, float]]


def estimates(reports: Reports, total: float) -> list[tuple[float, float | None, float]]:
    """For each report: the share that is done, the estimate, and how long it really took from there."""
    clock, found = ProgressClock(total), []
    end = reports[-1][0]
    for now, done in reports[:-1]:
        clock.report(now, done)
        if end - now > NEAR_THE_END * end:
            found.append((done / total, clock.seconds_left(now), end - now))
    return found


def require_factor(reports: Reports, total: float) -> None:
    """No estimate before the first tenth; then there is always one, and all are right."""
    found = estimates(reports, total)
    assert [share for share, left, _ in found if share < 0.1 and left is not None] == []
    assert [share for share, left, _ in found[1:] if share >= 0.1 and left is None] == []
    wrong = [
        (share, left, took)
        for share, left, took in found
        if left is not None and not took / FACTOR <= left <= took * FACTOR
    ]
    assert wrong == []


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.json")))
def test_recorded_stages_say_their_time_within_a_factor_two(name: str) -> None:
    recording = json.loads((RECORDED / f"{name}.json").read_text())
    require_factor([(now, done) for now, done in recording["reports"]], recording["total"])


def made(pace: Callable[[float], float], count: int, start: float = 0.0) -> Reports:
    """Reports of `count` equal pieces of work. pace: seconds per unit, by the share that is done. start: before it."""
    now, reports = start, []
    for at in range(count):
        now += pace((at + 0.5) / count) / count * 1000
        reports.append((now, float(at + 1)))
    return reports


SHAPES: dict[str, Callable[[float], float]] = {
    "steady": lambda done: 1,
    "slow at first": lambda done: 5 if done < 0.05 else 1,
    "slow and then less so": lambda done: 1 + 9 * math.exp(-done / 0.02),
    "slower by three in proportion": lambda done: 1 + 2 * done,
    "its speed falls to a third": lambda done: 1 / (1 - 2 / 3 * done),
    "its speed rises to three times": lambda done: 1 / (1 + 2 * done),
    "two phases, the second slower": lambda done: 1 if done < 0.5 else 1.9,
    "two phases, the second faster": lambda done: 1.9 if done < 0.5 else 1,
    "a pause": lambda done: 41 if 0.5 <= done < 0.505 else 1,
    "a pause now and then": lambda done: 6 if int(done * 200) % 10 == 0 else 1,
    "resumed": lambda done: 0.001 if done < 0.05 else 1,
}


@pytest.mark.parametrize("count", [20, 200, 9000])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_estimated_within_a_factor_two(shape: str, count: int) -> None:
    """Whatever came before the first report: a start of any length does not count."""
    for start in (0.0, 10_000.0):
        clock = ProgressClock(count)
        reports = made(SHAPES[shape], count, start)
        for now, done in reports[: count // 2]:
            clock.report(now, done)
        took = reports[-1][0] - reports[count // 2 - 1][0]
        assert took / FACTOR <= (clock.seconds_left(reports[count // 2 - 1][0]) or 0) <= took * FACTOR
    require_factor(made(SHAPES[shape], count), count)


def test_half_resumed_work_is_forgotten_soon() -> None:
    """What a resumed task finds done took no time. A hundredth of the rest later the estimate is right."""
    found = estimates(made(lambda done: 1e-4 if done < 0.5 else 1, 1000), 1000)
    assert [share for share, left, took in found if share > 0.51 and not took / 2 <= (left or 0) <= 2 * took] == []
    clock = ProgressClock(1000, done=500)
    assert clock.seconds_left(5) is None
    for now in range(1, 60):
        clock.report(now, 500 + now)
        assert (clock.seconds_left(now) is None) == (now < 50)
    assert clock.seconds_left(59) == pytest.approx(441)


def test_phases_and_triangles_are_steady_in_units_of_work() -> None:
    """A later row of a triangle has fewer pairs; a phase may take ten times as long. Who knows the work reports it."""
    rows = 300
    for work in ([rows - i for i in range(rows)], [1] * 150 + [10] * 150, [10] * 150 + [1] * 150):
        reports, now, done = [], 0.0, 0
        for amount in work:
            now += amount
            done += amount
            reports.append((now, float(done)))
        require_factor(reports, sum(work))


def test_the_time_left_passes_while_nothing_is_reported() -> None:
    clock = ProgressClock(100)
    for at in range(1, 51):
        clock.report(at, at)
    assert [clock.seconds_left(now) for now in (50, 52, 99, 100, 500)] == pytest.approx([50, 48, 1, 0, 0])
    clock.report(501, 100)
    assert clock.seconds_left(501) == 0


def test_the_same_amount_again_is_no_progress() -> None:
    clock = ProgressClock(100)
    for now, done in ((1, 20), (2, 20), (3, 10), (4, 20)):
        clock.report(now, done)
        assert clock.seconds_left(now) is None
    clock.report(5, 24)
    assert clock.rate() == pytest.approx(1)


@pytest.mark.parametrize("amounts", [[1, 2, 3, 4], [10], [0.1] * 100, [3, 0, 7]])
def test_work_is_reported_as_rows_that_add_up(amounts: list[float]) -> None:
    seen: list[int] = []
    add = as_rows(1000, 10, seen.append)
    for amount in amounts:
        add(amount)
    assert sum(seen) in (999, 1000) if len(amounts) == 100 else sum(seen) == 1000
    assert min(seen) >= 0
    assert all(isinstance(rows, int) for rows in seen)
    done = 0.0
    for rows, (before, after) in zip(seen, pairwise([0.0, *_sums(amounts)]), strict=True):
        done += rows
        assert before < after or rows == 0
        assert done == pytest.approx(100 * after, abs=1)


def _sums(amounts: list[float]) -> list[float]:
    return [sum(amounts[: at + 1]) for at in range(len(amounts))]
