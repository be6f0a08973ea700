"""What became of each task, by files, queue, accounting, notes and logs, any of which may be missing or late."""

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
from embedkit.run import RunFolder
from jobs.monitor.classify import Queue, State, Task, Typical, classify, mark_of, typical
from jobs.monitor.overview import Overview, Seen, make_overview
from jobs.monitor.screen import LEAST_ROWS, screen, whole
from jobs.profiles.schema import Resources
from jobs.records.attempts import NO_EXIT_RECORD, Attempt, Start
from jobs.records.submissions import LiveTask, Submission, new_submission
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


def attempt(what: Any, when: float, why: str = "", job: str = "5_1", restart: int = 0) -> Attempt:
    return Attempt(format=2, what=what, at=at(when), job=job, restart=restart, node="n1", done=0, why=why)


def start(what: str | None, why: str = "", when: float = LONG_AGO) -> Start:
    return Start(attempt("started", when), None if what is None else attempt(what, when, why))


def record(state: str, when: float = LONG_AGO) -> JobRecord:
    return JobRecord(job="5", index=1, state=state, exit_code="1:0", started=when)


def in_queue(state: str, index: int = 1, reason: str = "None") -> LiveTask:
    return LiveTask(QueueTask("5", index, state, reason, "n1", ""), "embed", (index,))


def verdict(queue: Queue = "answered", **known: Any) -> tuple[State, str]:
    found = classify(Task(name="embed-00001", **known), NOW, queue)
    return found.state, found.why


# What became of a task

PIECES = {
    "submission": st.sampled_from([None, submission(), submission(when=NOW)]),
    "was_cancelled": st.booleans(),
    "records": st.lists(st.builds(record, st.sampled_from(["FAILED", "RUNNING", "CANCELLED", "ODD"])), max_size=2),
    "starts": st.lists(
        st.builds(start, st.sampled_from([None, "finished", "stopped", "cancelled", "failed"]), st.text(max_size=5)),
        max_size=2,
    ),
    "error": st.sampled_from([None, "CUDA error"]),
    "problem": st.sampled_from([None, "merge refused it"]),
    "runs_here": st.booleans(),
    "live": st.sampled_from([None, in_queue("PENDING"), in_queue("RUNNING"), in_queue("A_STATE_OF_TOMORROW")]),
}
QUEUES: st.SearchStrategy[Queue] = st.sampled_from(["none", "answered", "silent"])


@tries(300)
@given(queue=QUEUES, known=st.fixed_dictionaries(PIECES))
def test_what_files_say_is_done_is_done_and_what_the_queue_has_is_there(queue: Queue, known: dict[str, Any]) -> None:
    assert verdict(queue, is_done=True, **known) == ("done", "")
    state, why = verdict(queue, **known)
    assert state != "done"
    live = known["live"]
    if live is not None:
        assert state == ("pending" if live.task.state == "PENDING" else "running")
    else:
        assert state == "running" or not known["runs_here"]
    assert bool(why) == (state in ("failed", "cancelled", "unsettled"))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"starts": [start("failed", "no memory\nmore")]}, ("failed", "no memory more")),
        ({"starts": [start("cancelled")]}, ("cancelled", "cancelled while it ran")),
        ({"starts": [start("stopped", "SIGUSR2")]}, ("failed", "told to stop (SIGUSR2), and not queued again")),
        ({"starts": [start("stopped", "SIGUSR2", NOW - 3)]}, ("unsettled", "just now")),
        ({"starts": [start("finished")]}, ("failed", "gone or damaged")),
        ({"starts": [start("finished")], "problem": "merge refused it: x"}, ("failed", "merge refused it: x")),
        ({"starts": [start(None)], "records": [record("NODE_FAIL")]}, ("failed", NO_EXIT_RECORD)),
        ({"starts": [start(None)], "records": [record("FAILED")], "error": "Killed"}, ("failed", "Killed")),
        ({"starts": [start(None)]}, ("failed", NO_EXIT_RECORD)),
        ({"starts": [start(None, when=NOW - 5)]}, ("unsettled", "just now")),
        ({"starts": [start(None)], "records": [record("CANCELLED")]}, ("cancelled", "while it ran")),
        ({"records": [record("CANCELLED")]}, ("cancelled", "before it started")),
        ({"was_cancelled": True}, ("cancelled", "before it started")),
        ({"was_cancelled": True, "starts": [start(None)], "records": [record("FAILED")]}, ("failed", NO_EXIT_RECORD)),
        ({"error": "module: command not found"}, ("failed", "module: command not found")),
        ({"records": [record("FAILED")]}, ("failed", "before its first word")),
        (
            {"starts": [start(None)], "records": [replace(record("NODE_FAIL"), ended=NOW - 3)]},
            ("unsettled", "just now"),
        ),
        ({}, ("failed", "without a start")),
    ],
)
def test_what_has_left_the_queue_is_told_by_its_notes_then_the_accounting_then_its_log(
    known: dict[str, Any], expected: tuple[str, str]
) -> None:
    state, why = verdict(submission=submission(), **known)
    assert state == expected[0]
    assert expected[1] in why


def test_what_was_submitted_a_moment_ago_and_is_nowhere_yet_is_not_called_failed() -> None:
    assert verdict(submission=submission(when=NOW - 2))[0] == "unsettled"


def test_while_squeue_is_silent_only_what_ended_for_sure_has_failed() -> None:
    assert verdict("silent", submission=submission(), starts=[start(None)])[0] == "unsettled"
    assert verdict("silent", submission=submission(), starts=[start("failed", "x")]) == ("failed", "x")
    assert verdict("silent", submission=submission(), records=[record("TIMEOUT")])[0] == "failed"


def test_without_a_cluster_what_is_not_at_work_waits_and_says_its_own_error() -> None:
    assert verdict("none") == ("pending", "")
    assert verdict("none", error="row 7 holds no text") == ("failed", "row 7 holds no text")
    assert verdict("none", error="of an earlier start", runs_here=True)[0] == "running"
    assert verdict("answered")[0] == "unsubmitted"


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


def test_a_shard_is_slow_against_the_median_of_what_the_plan_predicted() -> None:
    shards = [shard(seconds=seconds) for seconds in (100.0, 90.0, 110.0, 250.0)]
    usual = typical(shards)
    assert [mark_of(one, 1.0, usual, None) for one in shards] == ["", "", "", "slow"]
    assert mark_of(shards[3], 1.0, typical(shards[1:]), None) == ""  # too few to say
    # As slow in tokens a second, but its rows are longer, and the plan knows.
    assert mark_of(shard(seconds=250.0, predicted_seconds=500.0), 1.0, usual, None) == ""


def test_a_shard_hangs_if_nothing_is_new_for_minutes_and_for_many_usual_chunks() -> None:
    usual = Typical(shards=4, speed=1.0, chunk_seconds=20.0, start_seconds=90.0)
    assert mark_of(shard(), 290.0, usual, None) == ""
    assert mark_of(shard(), 310.0, usual, None) == "hung"
    assert mark_of(shard(), 310.0, Typical(4, 1.0, 100.0, 90.0), None) == ""
    assert mark_of(shard(done=0), 590.0, usual, None) == ""  # it starts
    assert mark_of(shard(done=0), 710.0, usual, None) == "hung"
    assert mark_of(shard(), 31.0, usual, 30.0) == "hung"
    assert mark_of(shard(), None, usual, 30.0) == ""


@given(st.lists(st.builds(shard, st.just(0), st.floats(0.01, 1e5), st.integers(0, 10)), max_size=9))
def test_the_medians_of_any_run_mark_nothing_that_is_as_the_median(shards: list[ShardStatus]) -> None:
    usual = typical(shards)
    for one in shards:
        speed = usual.speed
        if speed is not None and one.chunks_done and mark_of(one, 0.0, usual, None) == "slow":
            assert one.predicted_seconds * one.tokens_done / one.tokens / one.embed_seconds < speed


# A whole run


def status(shards: Sequence[ShardStatus], stage: Any = "embed") -> Status:
    return Status(
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
def runs(draw: st.DrawFn) -> Seen:
    count = draw(st.integers(1, 6))
    shards = [shard(number, draw(st.floats(1, 1000)), draw(st.integers(0, 10))) for number in range(count)]
    shards = [shard(number, state="done", done=10) if draw(st.booleans()) else one for number, one in enumerate(shards)]
    states = st.sampled_from(["RUNNING", "PENDING", "COMPLETING", "ODD"])
    queue = [in_queue(draw(states), number) for number in range(count) if draw(st.booleans())]
    starts = {f"embed-{n:05d}": [start(draw(st.sampled_from([None, "failed", "stopped"])))] for n in range(count)}
    return Seen(
        run=RUN,
        status=status(shards),
        now=NOW,
        submissions=draw(st.sampled_from([(), (submission(array=f"0-{count - 1}%3"),)])),
        queue=draw(st.sampled_from([None, queue])),
        records=draw(st.sampled_from([None, [], [record("FAILED")]])),
        starts=draw(st.sampled_from([{}, starts])),
        errors=draw(st.sampled_from([{}, {"embed-00000": "CUDA error [/red]"}])),
    )


@tries(60)
@given(runs(), st.sampled_from([None, 10, 24, 60]))
def test_any_run_has_every_shard_once_and_fits_its_screen(seen: Seen, height: int | None) -> None:
    overview = make_overview(seen)
    embed = next(stage for stage in overview.stages if stage.stage == "embed")
    assert sum(embed.tasks.values()) == len(overview.shards) == len(seen.status.shards)
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
        console.print(whole(overview, RUN) if height is None else screen(overview, RUN, console), highlight=False)
    return re.sub(r"\x1b\[[0-9;]*m", "", capture.get())


def test_of_64_shards_one_screen_shows_the_bad_ones_first_with_node_cause_and_log() -> None:
    shards = [shard(number, state="done", done=10) for number in range(40)]
    shards += [shard(number, seconds=50.0 + number % 7, changed=NOW - 10) for number in range(40, 56)]
    shards += [shard(number, done=0) for number in range(56, 64)]
    shards[43] = shard(43, seconds=200.0, changed=NOW - 5)
    shards[50] = shard(50, seconds=50.0, changed=NOW - 1500)
    failed = {"embed-00047": [Start(attempt("started", LONG_AGO, job="5_47"), attempt("failed", NOW, "CUDA error"))]}
    seen = Seen(
        run=RUN,
        status=status(shards),
        now=NOW,
        submissions=[submission(array="0-63%16")],
        queue=[
            *(in_queue("RUNNING", number) for number in range(40, 56) if number != 47),
            *(in_queue("PENDING", number, "JobArrayTaskLimit") for number in range(56, 64)),
        ],
        records=[JobRecord(job="5", index=47, state="FAILED", exit_code="1:0", node="n1")],
        starts=failed,
        errors={},
        logs=frozenset({"embed-00047", "embed-00043", "embed-00050"}),
    )
    lines = shown(make_overview(seen), 24, 150).splitlines()
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


def test_gpu_hours_count_every_start_whatever_became_of_it() -> None:
    starts = [
        Start(attempt("started", NOW - 7200), None),  # killed; the accounting knows when
        Start(attempt("started", NOW - 3600, restart=1), attempt("stopped", NOW - 1800, restart=1)),
        Start(attempt("started", NOW - 900, restart=2), None),  # it runs
    ]
    seen = Seen(
        run=RUN,
        status=status([shard(0, done=0), shard(1, changed=NOW - 10), shard(2, done=0)]),
        now=NOW,
        submissions=[submission()],
        queue=[in_queue("RUNNING")],
        records=[JobRecord(job="5", index=1, state="NODE_FAIL", ended=NOW - 5400)],
        starts={"embed-00001": starts},
        errors={},
    )
    overview = make_overview(seen)
    assert overview.shards[1].gpu_hours == pytest.approx((1800 + 1800 + 900) / 3600)
    assert overview.shards[1].starts == 3
    assert overview.shards[0].gpu_hours is None


def test_a_lost_node_is_named_with_the_shards_that_slurm_starts_again() -> None:
    seen = Seen(
        run=RUN,
        status=status([shard(number, done=0) for number in range(3)]),
        now=NOW,
        submissions=[submission()],
        queue=[in_queue("PENDING", 1, "BeginTime"), in_queue("RUNNING", 2)],
        records=[
            JobRecord(job="5", index=index, state=state, node="n2")
            for index, state in ((0, "NODE_FAIL"), (1, "NODE_FAIL"), (2, "RUNNING"))
        ],
        starts={},
        errors={},
    )
    overview = make_overview(seen)
    assert overview.notes == ("node n2 was lost; Slurm starts its tasks again by itself: shards 1",)
    assert "note: node n2 was lost" in shown(overview)
