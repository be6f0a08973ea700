"""The state of each task, by files, queue, accounting, attempts and logs, any of which may be missing or late."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from embedkit.check.status import ShardStatus, Status
from embedkit.engines.facts import EngineFacts
from embedkit.run import RunFolder
from jobs.monitor.classify import Queue, State, TaskObservations, classify
from jobs.monitor.observations import RunObservations
from jobs.monitor.overview import make_overview
from jobs.monitor.pace import Medians, alert_for, medians_of
from jobs.monitor.schema import Overview
from jobs.monitor.screen import LEAST_ROWS, all_lines, screen
from jobs.profiles.schema import Resources
from jobs.records.attempts import NO_EXIT_RECORD, Attempt, AttemptEvent
from jobs.records.submission import Submission, new_submission
from jobs.records.submissions import LiveTask
from jobs.slurm.accounting import JobRecord
from jobs.slurm.client import Task as QueueTask
from tests.support.fuzzing import tries

NOW = 1_800_000_000.0
LONG_AGO = NOW - 3600
RUN = RunFolder(Path("/runs/demo"))


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def submission(job: str = "5", array: str = "0-2%2", when: float = LONG_AGO) -> Submission:
    line = new_submission("embed", array, "", "submit", "/p.toml", Resources(gpus=1))
    fields = {name: getattr(line, name) for name in line.__struct_fields__}
    return Submission(**(fields | {"what": "submitted", "job": job, "at": at(when)}))


def event(what: Any, when: float, why: str = "", job: str = "5_1", restart: int = 0) -> AttemptEvent:
    return AttemptEvent(format=2, what=what, at=at(when), job=job, restart=restart, node="n1", done=0, why=why)


def attempt(what: str | None, why: str = "", when: float = LONG_AGO) -> Attempt:
    """An attempt with an exit record of this kind; without one if `what` is None."""
    return Attempt(event("started", when), None if what is None else event(what, when, why))


def record(state: str, when: float = LONG_AGO) -> JobRecord:
    return JobRecord(job="5", index=1, state=state, exit_code="1:0", started=when)


def in_queue(state: str, index: int = 1, reason: str = "None") -> LiveTask:
    return LiveTask(QueueTask("5", index, state, reason, "n1", ""), "embed", (index,))


def classified(queue: Queue = "answered", **observed: Any) -> tuple[State, str]:
    found = classify(TaskObservations(name="embed-00001", **observed), NOW, queue)
    return found.state, found.why


# The state of a task

PIECES = {
    "submission": st.sampled_from([None, submission(), submission(when=NOW)]),
    "was_cancelled": st.booleans(),
    "records": st.lists(st.builds(record, st.sampled_from(["FAILED", "RUNNING", "CANCELLED", "ODD"])), max_size=2),
    "attempts": st.lists(
        st.builds(attempt, st.sampled_from([None, "finished", "stopped", "cancelled", "failed"]), st.text(max_size=5)),
        max_size=2,
    ),
    "error": st.sampled_from([None, "CUDA error"]),
    "problem": st.sampled_from([None, "merge rejected it"]),
    "runs_here": st.booleans(),
    "live": st.sampled_from([None, in_queue("PENDING"), in_queue("RUNNING"), in_queue("A_STATE_OF_TOMORROW")]),
}
QUEUES: st.SearchStrategy[Queue] = st.sampled_from(["none", "answered", "silent"])


@tries(150)
@given(queue=QUEUES, known=st.fixed_dictionaries(PIECES))
def test_done_comes_from_files_and_running_from_the_queue(queue: Queue, known: dict[str, Any]) -> None:
    """A shard with a manifest is done; a task in the queue is pending or running, whatever else was observed."""
    assert classified(queue, is_done=True, **known) == ("done", "")
    state, why = classified(queue, **known)
    assert state != "done"
    live = known["live"]
    if live is not None:
        assert state == ("pending" if live.task.state == "PENDING" else "running")
    else:
        assert state == "running" or not known["runs_here"]
    assert bool(why) == (state in ("failed", "cancelled", "unknown"))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"attempts": [attempt("failed", "no memory\nmore")]}, ("failed", "no memory; more")),
        ({"attempts": [attempt("cancelled")]}, ("cancelled", "cancelled while it ran")),
        ({"attempts": [attempt("stopped", "SIGUSR2")]}, ("failed", "stopped by SIGUSR2, and not queued again")),
        ({"attempts": [attempt("stopped", "SIGUSR2", NOW - 3)]}, ("unknown", "just now")),
        ({"attempts": [attempt("finished")]}, ("failed", "missing or damaged")),
        ({"attempts": [attempt("finished")], "problem": "merge rejected it: x"}, ("failed", "merge rejected it: x")),
        (
            {"attempts": [attempt(None)], "records": [replace(record("NODE_FAIL"), node="n3")]},
            ("failed", "it ended without an exit record: n3 was lost"),
        ),
        ({"attempts": [attempt(None)], "records": [record("FAILED")], "error": "Killed"}, ("failed", "Killed")),
        ({"attempts": [attempt(None)]}, ("failed", NO_EXIT_RECORD)),
        ({"attempts": [attempt(None, when=NOW - 5)]}, ("unknown", "just now")),
        ({"attempts": [attempt(None)], "records": [record("CANCELLED")]}, ("cancelled", "while it ran")),
        ({"records": [record("CANCELLED")]}, ("cancelled", "before it started")),
        ({"was_cancelled": True}, ("cancelled", "before it started")),
        (
            {"was_cancelled": True, "attempts": [attempt(None)], "records": [record("FAILED")]},
            ("failed", NO_EXIT_RECORD),
        ),
        ({"error": "module: command not found"}, ("failed", "module: command not found")),
        ({"records": [record("FAILED")]}, ("failed", "before embedkit started: exit code 1")),
        ({"records": [replace(record("ODD"), exit_code="0:0")]}, ("failed", "embedkit started: killed from outside?")),
        (
            {"attempts": [attempt(None)], "records": [replace(record("NODE_FAIL"), ended=NOW - 3)]},
            ("unknown", "just now"),
        ),
        ({}, ("failed", "without starting")),
    ],
)
def test_ended_task_by_exit_record_accounting_log(known: dict[str, Any], expected: tuple[str, str]) -> None:
    """A task that left the queue is classified by its exit record, then the accounting, then its log."""
    state, why = classified(submission=submission(), **known)
    assert state == expected[0]
    assert expected[1] in why


def test_just_submitted_task_is_unknown_not_failed() -> None:
    assert classified(submission=submission(when=NOW - 2))[0] == "unknown"


def test_silent_squeue_leaves_only_certain_failures() -> None:
    assert classified("silent", submission=submission(), attempts=[attempt(None)])[0] == "unknown"
    assert classified("silent", submission=submission(), attempts=[attempt("failed", "x")]) == ("failed", "x")
    assert classified("silent", submission=submission(), records=[record("TIMEOUT")])[0] == "failed"


def test_without_slurm_tasks_wait_or_show_their_own_error() -> None:
    assert classified("none") == ("pending", "")
    assert classified("none", error="row 7 holds no text") == ("failed", "row 7 holds no text")
    assert classified("none", error="of an earlier start", runs_here=True)[0] == "running"
    assert classified("answered")[0] == "unsubmitted"


# Slow and hung


def shard(number: int = 0, seconds: float = 100.0, done: int = 5, **more: Any) -> ShardStatus:
    fields: dict[str, Any] = {
        "shard": number,
        "state": "started" if done else "pending",
        "rows_done": 10 * done,
        "rows": 100,
        "tokens_done": 1000 * done,
        "tokens": 10_000,
        "chunks_done": done,
        "chunks": 10,
        "embed_seconds": seconds if done else 0.0,
        "predicted_seconds": 200.0,
    }
    return ShardStatus(**(fields | more))


def test_shard_is_slow_by_median_of_predicted_speed() -> None:
    shards = [shard(seconds=seconds) for seconds in (100.0, 90.0, 110.0, 250.0)]
    medians = medians_of(shards)
    assert [alert_for(one, 1.0, medians, None) for one in shards] == ["", "", "", "slow"]
    assert alert_for(shards[3], 1.0, medians_of(shards[1:]), None) == ""  # too few to say
    # As slow in tokens a second, but its rows are longer, and the plan knows.
    assert alert_for(shard(seconds=250.0, predicted_seconds=500.0), 1.0, medians, None) == ""


def test_shard_is_hung_after_minutes_and_many_usual_chunks() -> None:
    medians = Medians(shards=4, speed=1.0, chunk_seconds=20.0, start_seconds=90.0)
    assert alert_for(shard(), 290.0, medians, None) == ""
    assert alert_for(shard(), 310.0, medians, None) == "hung"
    assert alert_for(shard(), 310.0, Medians(4, 1.0, 100.0, 90.0), None) == ""
    assert alert_for(shard(done=0), 590.0, medians, None) == ""  # it starts
    assert alert_for(shard(done=0), 710.0, medians, None) == "hung"
    assert alert_for(shard(), 31.0, medians, 30.0) == "hung"
    assert alert_for(shard(), None, medians, 30.0) == ""


@given(st.lists(st.builds(shard, st.just(0), st.floats(0.01, 1e5), st.integers(0, 10)), max_size=9))
def test_median_speed_is_never_slow(shards: list[ShardStatus]) -> None:
    medians = medians_of(shards)
    for one in shards:
        speed = medians.speed
        if speed is not None and one.chunks_done and alert_for(one, 0.0, medians, None) == "slow":
            assert one.predicted_seconds * one.tokens_done / one.tokens / one.embed_seconds < speed


# A whole run


def status(shards: Sequence[ShardStatus], stage: Any = "embed") -> Status:
    return Status(
        engine=EngineFacts(engine="vllm", engine_version="0.24.0", device="cuda", dtype="bfloat16"),
        run=str(RUN.path),
        stage=stage,
        rows_prepared=300,
        rows_chosen=300,
        rows_kept=290,
        dropped={"too_long": 10},
        tokens_done=sum(one.tokens_done for one in shards),
        tokens=sum(one.tokens for one in shards),
        shards=tuple(shards),
    )


@st.composite
def runs(draw: st.DrawFn) -> RunObservations:
    count = draw(st.integers(1, 6))
    shards = [shard(number, draw(st.floats(1, 1000)), draw(st.integers(0, 10))) for number in range(count)]
    shards = [shard(number, state="done", done=10) if draw(st.booleans()) else one for number, one in enumerate(shards)]
    states = st.sampled_from(["RUNNING", "PENDING", "COMPLETING", "ODD"])
    queue = [in_queue(draw(states), number) for number in range(count) if draw(st.booleans())]
    attempts = {f"embed-{n:05d}": [attempt(draw(st.sampled_from([None, "failed", "stopped"])))] for n in range(count)}
    return RunObservations(
        run=RUN,
        status=status(shards),
        now=NOW,
        submissions=draw(st.sampled_from([(), (submission(array=f"0-{count - 1}%3"),)])),
        queue=draw(st.sampled_from([None, queue])),
        records=draw(st.sampled_from([None, [], [record("FAILED")]])),
        attempts=draw(st.sampled_from([{}, attempts])),
        errors=draw(st.sampled_from([{}, {"embed-00000": "CUDA error [/red]"}])),
    )


@tries(60)
@given(runs(), st.sampled_from([None, 10, 24, 60]))
def test_any_run_shows_each_shard_once_and_fits_the_screen(observed: RunObservations, height: int | None) -> None:
    overview = make_overview(observed)
    embed = next(stage for stage in overview.stages if stage.stage == "embed")
    assert sum(embed.tasks.values()) == len(overview.shards) == len(observed.status.shards)
    for view in overview.shards:
        assert view.seconds_left is None or view.seconds_left >= 0
        assert view.gpu_hours is None or view.gpu_hours >= 0
    assert overview.seconds_left is None or overview.seconds_left >= 0
    text = shown(overview, height)
    if height is None:
        assert all(view.why in text for view in overview.shards)
    causes = {view.why for view in overview.shards if view.state == "failed"}
    assert len(causes) > LEAST_ROWS or all(cause in text for cause in causes)


def shown(overview: Overview, height: int | None = None, width: int = 200) -> str:
    console = Console(width=width, height=height, force_terminal=height is not None, no_color=True)
    with console.capture() as capture:
        console.print(all_lines(overview, RUN) if height is None else screen(overview, RUN, console), highlight=False)
    return re.sub(r"\x1b\[[0-9;]*m", "", capture.get())


def test_screen_of_64_shards_shows_trouble_first() -> None:
    """The failed, hung and slow shards come first, with node, cause and log, and all fits 24 lines."""
    shards = [shard(number, state="done", done=10) for number in range(40)]
    shards += [shard(number, seconds=50.0 + number % 7, changed=NOW - 10) for number in range(40, 56)]
    shards += [shard(number, done=0) for number in range(56, 64)]
    shards[43] = shard(43, seconds=200.0, changed=NOW - 5)
    shards[50] = shard(50, seconds=50.0, changed=NOW - 1500)
    failed = {"embed-00047": [Attempt(event("started", LONG_AGO, job="5_47"), event("failed", NOW, "CUDA error"))]}
    observed = RunObservations(
        run=RUN,
        status=status(shards),
        now=NOW,
        submissions=[submission(array="0-63%16")],
        queue=[
            *(in_queue("RUNNING", number) for number in range(40, 56) if number != 47),
            *(in_queue("PENDING", number, "JobArrayTaskLimit") for number in range(56, 64)),
        ],
        records=[JobRecord(job="5", index=47, state="FAILED", exit_code="1:0", node="n1")],
        attempts=failed,
        errors={},
        logs=frozenset({"embed-00047", "embed-00043", "embed-00050"}),
    )
    lines = shown(make_overview(observed), 24, 150).splitlines()
    assert len(lines) == 23  # the prompt has one
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("shard")) + 1 :]
    assert [line.split()[:2] for line in table[:4]] == [
        *(["47", "failed"], ["50", "hung"], ["43", "slow"]),
        table[3].split()[:2],
    ]
    assert "FAILED 1:0: CUDA error; logs/embed-00047.log" in table[0]
    assert " n1 " in table[0]
    assert "nothing new for 25.0 min" in table[1]
    assert "0.25 of the median's speed" in table[2]
    assert table[3].split()[1] == "running"
    text = "\n".join(lines)
    assert "40 done, 15 running, 8 pending, 1 failed" in text
    assert "8 pending (JobArrayTaskLimit): shards 56-63" in text
    assert "scontrol requeue 5_50" in text
    assert "embedkit rerun /runs/demo" in text or "to continue:" in text


def test_gpu_hours_count_every_attempt_however_it_ended() -> None:
    attempts = [
        Attempt(event("started", NOW - 7200), None),  # killed; the accounting knows when
        Attempt(event("started", NOW - 3600, restart=1), event("stopped", NOW - 1800, restart=1)),
        Attempt(event("started", NOW - 900, restart=2), None),  # it runs
    ]
    observed = RunObservations(
        run=RUN,
        status=status([shard(0, done=0), shard(1, changed=NOW - 10), shard(2, done=0)]),
        now=NOW,
        submissions=[submission()],
        queue=[in_queue("RUNNING")],
        records=[JobRecord(job="5", index=1, state="NODE_FAIL", ended=NOW - 5400)],
        attempts={"embed-00001": attempts},
        errors={},
    )
    overview = make_overview(observed)
    assert overview.shards[1].gpu_hours == pytest.approx((1800 + 1800 + 900) / 3600)
    assert overview.shards[1].attempts == 3
    assert overview.shards[0].gpu_hours is None


def test_gpu_hours_and_attempts_count_starts_without_python() -> None:
    """Of the first start only the accounting knows."""
    observed = RunObservations(
        run=RUN,
        status=status([shard(0, done=0), shard(1, changed=NOW - 10), shard(2, done=0)]),
        now=NOW,
        submissions=[submission()],
        queue=[in_queue("RUNNING")],
        records=[
            replace(record("NODE_FAIL", NOW - 7200), ended=NOW - 3600),
            record("RUNNING", NOW - 1800),
        ],
        attempts={"embed-00001": [Attempt(event("started", NOW - 1800, restart=1), None)]},
        errors={},
    )
    overview = make_overview(observed)
    assert overview.shards[1].gpu_hours == pytest.approx(1.5)
    assert [view.attempts for view in overview.shards] == [0, 2, 0]


def test_lost_node_is_named_with_its_requeued_shards() -> None:
    observed = RunObservations(
        run=RUN,
        status=status([shard(number, done=0) for number in range(3)]),
        now=NOW,
        submissions=[submission()],
        queue=[in_queue("PENDING", 1, "BeginTime"), in_queue("RUNNING", 2)],
        records=[
            JobRecord(job="5", index=index, state=state, node="n2")
            for index, state in ((0, "NODE_FAIL"), (1, "NODE_FAIL"), (2, "RUNNING"))
        ],
        attempts={},
        errors={},
    )
    overview = make_overview(observed)
    assert overview.notes == ("node n2 was lost; Slurm starts its tasks again by itself: shards 1",)
    assert "note: node n2 was lost" in shown(overview)
