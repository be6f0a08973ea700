"""shards_per_task: a shard that waits for its turn in an array task, or whose turn never came."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from jobs.monitor.observations import RunObservations
from jobs.monitor.overview import make_overview
from jobs.monitor.schema import Overview
from jobs.profiles.schema import Resources
from jobs.records.attempts import Attempt
from jobs.records.submission import new_submission
from jobs.records.submissions import LiveTask
from tests.jobs.monitor.test_overview import LONG_AGO, NOW, RUN, at, event, in_queue, record, shard, shown, status

LINE = new_submission("embed", "1%2", "", "submit", "/p.toml", Resources(gpus=1, shards_per_task=3), "1-3")
LINE = msgspec.structs.replace(LINE, what="submitted", job="5", at=at(LONG_AGO))
FINISHED = Attempt(event("started", NOW - 1800), event("finished", NOW - 900))
RUNNING = Attempt(event("started", NOW - 900), None)


def overview(attempts: dict[int, list[Attempt]], done: int = 0, **more: Any) -> Overview:
    """A task of the shards 1 to 3, of which the first `done` are finished; shard 0 is finished, too."""
    shards = [shard(i, done=5, changed=NOW - 10, state="done" if i <= done else "started") for i in range(4)]
    observed = RunObservations(
        run=RUN,
        status=status([one if i <= done + 1 else replace_done(one) for i, one in enumerate(shards)]),
        now=NOW,
        submissions=[LINE],
        attempts={f"embed-{number:05d}": lane for number, lane in attempts.items()},
        errors={},
        **more,
    )
    return make_overview(observed)


def replace_done(one: Any) -> Any:
    """The shard without a chunk."""
    return shard(one.shard, done=0, state="pending")


def states(found: Overview) -> list[str]:
    return [view.state for view in found.shards]


def live(state: str = "RUNNING") -> list[LiveTask]:
    return [replace(in_queue(state), shards=(1, 2, 3))]


def test_a_shard_waits_behind_the_one_that_runs() -> None:
    """The task runs for an hour, and shard 3 has not begun: it is not hung."""
    found = overview({1: [FINISHED], 2: [RUNNING]}, done=1, queue=live(), hung_after=1200.0)
    assert states(found) == ["done", "done", "running", "pending"]
    assert [(view.alert, view.quiet_seconds) for view in found.shards[2:]] == [("", 10.0), ("", None)]
    assert found.shards[3].why == "its turn comes after shard 2 of the same task"
    assert found.shards[3].gpu_hours is None
    assert "1 pending: shards 3: their turn comes after other shards of their tasks" in shown(found)


def test_before_the_first_shard_has_begun_the_others_wait() -> None:
    found = overview({}, queue=live())
    assert states(found) == ["done", "running", "pending", "pending"]
    assert found.shards[2].why == "its turn comes after shard 1 of the same task"
    assert states(overview({}, queue=live("PENDING"))) == ["done", "pending", "pending", "pending"]


def test_a_shard_counts_as_slow_or_hung_by_its_own_start() -> None:
    found = overview({1: [FINISHED], 2: [FINISHED], 3: [RUNNING]}, done=2, queue=live(), hung_after=5.0)
    assert [view.alert for view in found.shards] == ["", "", "", "hung"]
    assert found.shards[3].quiet_seconds == 10.0


@pytest.mark.parametrize(
    ("attempts", "state", "expected"),
    [
        ({1: [FINISHED]}, "COMPLETED", ["done", "done", "unsubmitted", "unsubmitted"]),
        ({1: [FINISHED], 2: [RUNNING]}, "FAILED", ["done", "done", "failed", "unsubmitted"]),
        ({1: [FINISHED], 2: [RUNNING]}, "CANCELLED", ["done", "done", "cancelled", "cancelled"]),
        ({1: [FINISHED]}, None, ["done", "done", "unsubmitted", "unsubmitted"]),  # no accounting
    ],
)
def test_a_shard_whose_turn_never_came_did_not_fail(
    attempts: dict[int, list[Attempt]], state: str | None, expected: list[str]
) -> None:
    records = None if state is None else [replace(record(state), ended=NOW - 600)]
    found = overview(attempts, done=1, queue=[], records=records)
    assert states(found) == expected
    if expected[3] == "unsubmitted":
        assert found.shards[3].why == "its array task ended before its turn"
    assert found.shards[3].attempts == 0


def test_a_task_that_ended_before_python_failed_with_all_its_shards() -> None:
    found = overview({}, queue=[], records=[replace(record("FAILED"), ended=NOW - 600)])
    assert states(found) == ["done", "failed", "failed", "failed"]
    assert "it ended before embedkit started" in found.shards[2].why


def test_fewer_tasks_than_shards_at_once_take_longer() -> None:
    """Shard 3 waits for shard 2 in its task, though a second shard of the run could be embedded at once."""
    found = overview({1: [FINISHED], 2: [RUNNING]}, done=1, queue=live())
    assert found.seconds_left == pytest.approx(100 + 200)  # the rest of shard 2, then shard 3


def test_gpu_hours_of_shards_in_turn_add_up_to_those_of_the_task() -> None:
    found = overview({1: [FINISHED], 2: [RUNNING]}, done=1, queue=live())
    assert [view.gpu_hours for view in found.shards[1:]] == [pytest.approx(0.25), pytest.approx(0.25), None]
