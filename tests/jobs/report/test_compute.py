"""Reports of attempts that went in known ways, and properties that every report has."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.records.clocks import clock_errors, with_right_times
from jobs.records.submission import Submission
from jobs.records.submissions import LiveTask
from jobs.report.collect import attempt_names, place_of, seconds_logged
from jobs.report.compute import make_report
from jobs.report.observations import AttemptFiles, AttemptObservations
from jobs.report.schema import Report, Spent
from jobs.slurm.client import Task
from tests.support.fuzzing import tries
from tests.support.histories import (
    GIB,
    T0,
    attempt_of,
    finished_files,
    inputs,
    manifest,
    observations,
    record,
    submission,
)

EMBED = submission("embed", "7", array="0-3%2", gpus=1)


def report_of(observed: AttemptObservations, **more: Any) -> Report:
    return make_report(inputs(observed, **more))


def test_attempt_with_exit_record_needs_no_accounting() -> None:
    report = report_of(observations({0: [attempt_of("7_0", 10, 40, cpu_seconds=60.0)]}, [EMBED]))
    (attempt,) = report.attempts
    assert (attempt.outcome, attempt.wall_seconds, attempt.queue_seconds, attempt.device_seconds) == (
        *("finished", 30.0, 10.0),
        30.0,
    )
    assert (attempt.cpus_requested, attempt.cpu_seconds, attempt.memory_requested, attempt.memory_peak) == (
        *(4, 60.0, 2 * GIB),
        GIB,
    )
    assert report.accounting == "none"


def test_accounting_widens_an_attempt_to_its_allocation() -> None:
    observed = observations(
        {0: [attempt_of("7_0", 10, 40)]}, [EMBED], [record("7", 0, 5, 42, "COMPLETED", eligible=3, gpus=2)]
    )
    (attempt,) = report_of(observed).attempts
    assert (attempt.wall_seconds, attempt.queue_seconds, attempt.gpus) == (37.0, 2.0, 2)
    assert (attempt.cpu_seconds, attempt.memory_peak) == (3.0, GIB // 2)  # where the line has none


def test_killed_attempt_ends_when_the_accounting_says() -> None:
    observed = observations({0: [attempt_of("7_0", 10)]}, [EMBED], [record("7", 0, 8, 30, "NODE_FAIL")])
    (attempt,) = report_of(observed).attempts
    assert (attempt.outcome, attempt.wall_seconds, attempt.ended_at_least) == ("failed", 22.0, False)
    assert attempt.why is not None
    assert "NODE_FAIL" in attempt.why


def test_killed_attempt_ends_between_last_write_and_next_start() -> None:
    lane = [attempt_of("7_0", 10), attempt_of("8_0", 50, 60)]
    writes = {(("embed", 0), "7_0", 0): T0 + 25.0}
    first, second = report_of(observations({0: lane}, [EMBED], last_writes=writes)).attempts
    assert (first.outcome, first.ended, first.ended_at_least) == ("failed", T0 + 25, True)
    late = {(("embed", 0), "7_0", 0): T0 + 55.0}  # the next start's own writing
    assert report_of(observations({0: lane}, [EMBED], last_writes=late)).attempts[0].ended == T0 + 50
    assert (second.outcome, second.ended_at_least) == ("finished", False)


def test_killed_attempt_ran_as_long_as_its_adopted_chunks() -> None:
    lane = [attempt_of("7_0", 10), attempt_of("8_0", 50, 60)]
    files = replace(finished_files("8_0", 0, 50, 60), adopted_seconds=7.0)
    first, _ = report_of(observations({0: lane}, [EMBED], files={0: [files]})).attempts
    assert (first.wall_seconds, first.ended_at_least) == (7.0, True)
    long = replace(files, adopted_seconds=70.0)
    assert report_of(observations({0: lane}, [EMBED], files={0: [long]})).attempts[0].wall_seconds == 40.0


def test_unknown_numbers_are_none_and_not_0() -> None:
    report = report_of(observations({0: [attempt_of("9_0", 10), attempt_of("9_0", 70, 80, restart=1)]}))
    first = report.attempts[0]
    assert (first.ended, first.wall_seconds, first.queue_seconds, first.cpu_seconds) == (None,) * 4
    assert (first.cpus_requested, first.memory_requested, first.memory_peak, first.device_seconds) == (None,) * 4
    (shard,) = report.shards
    assert (shard.embedded_seconds, shard.tokens_per_second, shard.cpus_used) == (None,) * 3


def test_attempt_that_only_the_accounting_knows_counts() -> None:
    """The set-up of its node hung, and Python never ran."""
    records = [record("7", 1, 10, 20, "TIMEOUT"), record("7", 1, 40, 60, "COMPLETED")]
    report = report_of(observations({1: [attempt_of("7_1", 43, 59, restart=1)]}, [EMBED], records), shards=2)
    first, second = report.attempts
    assert (first.shard, first.restart, first.outcome, first.wall_seconds, first.node) == (
        1,
        None,
        "failed",
        10.0,
        "n9",
    )
    assert (second.restart, second.wall_seconds) == (1, 20.0)
    assert report.shards[1].attempts == 2


@pytest.mark.parametrize(
    ("exit_code", "why"),
    [
        ("127:0", "it ended before embedkit started: a program is not on the node (exit 127); Slurm says FAILED 127:0"),
        ("255:0", "it ended before embedkit started; Slurm says FAILED 255:0"),
        (
            "0:24",
            "it ended before embedkit started: it reached a limit on CPU time (SIGXCPU); more memory does not help; "
            "Slurm says FAILED 0:24",
        ),
    ],
)
def test_an_end_before_python_has_its_cause(exit_code: str, why: str) -> None:
    records = [replace(record("7", 1, 10, 20, "FAILED"), exit_code=exit_code)]
    assert report_of(observations({}, [EMBED], records), shards=2).attempts[0].why == why
    killed = report_of(observations({1: [attempt_of("7_1", 11)]}, [EMBED], records), shards=2).attempts[0].why
    assert killed is not None
    assert killed.startswith("it ended without an exit record")
    assert killed.endswith(f"Slurm says FAILED {exit_code}")


def test_purged_record_is_not_replaced_by_a_later_one() -> None:
    lane = [attempt_of("7_0", 10, 20, "stopped"), attempt_of("7_0", 130, 150, restart=1)]
    first, second = report_of(observations({0: lane}, [EMBED], [record("7", 0, 128, 151, "COMPLETED")])).attempts
    assert (first.wall_seconds, second.wall_seconds) == (10.0, 23.0)
    assert report_of(observations({0: lane}, [EMBED], [record("7", 0, 128, 151, "COMPLETED")])).accounting == "partial"


def test_queue_time_begins_when_the_awaited_job_ended() -> None:
    prepared = replace(
        observations(
            {0: [attempt_of("7_0", 100, 130)]}, [submission("prepare", "6"), submission("embed", "7", after=["6"])]
        )
    )
    prepared.attempts[("prepare", None)] = [attempt_of("6", 5, 90)]  # type: ignore[index]
    queue = {attempt.stage: attempt.queue_seconds for attempt in report_of(prepared).attempts}
    assert queue == {"prepare": 5.0, "embed": 10.0}


def test_queue_time_of_a_requeue_begins_at_the_previous_end() -> None:
    lane = [attempt_of("7_0", 10, 20, "stopped"), attempt_of("7_0", 130, 150, restart=1)]
    assert [attempt.queue_seconds for attempt in report_of(observations({0: lane}, [EMBED])).attempts] == [10.0, 110.0]


def test_waiting_for_the_arrays_own_limit_is_no_queue_time() -> None:
    lanes = {
        0: [attempt_of("7_0", 1, 50)],
        1: [attempt_of("7_1", 1, 40)],
        2: [attempt_of("7_2", 43, 90)],
        3: [attempt_of("7_3", 51, 90)],
    }
    report = report_of(observations(lanes, [EMBED]), shards=4)
    assert [shard.queue_seconds for shard in report.shards] == [1.0, 1.0, 3.0, 1.0]


def test_shards_that_share_a_task_share_its_gpus() -> None:
    lanes = {shard: [attempt_of("7_0", 10, 40)] for shard in range(4)}
    observed = observations(lanes, [submission("embed", "7", array="0", gpus=4)])
    report = report_of(observed, shards=4)
    assert [attempt.gpus for attempt in report.attempts] == [1.0] * 4
    assert report.device_seconds == 4 * 30.0
    assert [attempt.cpus_requested for attempt in report.attempts] == [1.0] * 4


def in_turn(gpus: int, per_job: int) -> Submission:
    """A task with two shards for each of its workers, one after another."""
    line = submission("embed", "7", array="0", gpus=gpus)
    return msgspec.structs.replace(line, shards=f"0-{per_job - 1}", per_job=per_job, in_turn=2)


def test_a_shard_in_turn_has_the_whole_gpu_for_its_own_time() -> None:
    """The accounting's start and end are those of the task: only its first shard began then."""
    lanes = {0: [attempt_of("7_0", 10, 40)], 1: [attempt_of("7_0", 40, 60)]}
    records = [record("7", 0, 5, 62, "COMPLETED", eligible=3, gpus=1)]
    first, second = report_of(observations(lanes, [in_turn(1, 2)], records), shards=2).attempts
    assert (first.wall_seconds, first.device_seconds, first.queue_seconds) == (35.0, 35.0, 2.0)
    assert (second.wall_seconds, second.device_seconds, second.queue_seconds) == (20.0, 20.0, 0.0)
    assert [one.cpus_requested for one in (first, second)] == [4.0, 4.0]
    assert [one.cpu_seconds for one in (first, second)] == [1.5, 1.5]  # the accounting's, of the whole task
    assert [one.memory_peak for one in (first, second)] == [None, None]


def test_two_workers_with_two_shards_each_have_a_gpu_each() -> None:
    lanes = {shard: [attempt_of("7_0", 10 + 30 * (shard > 1), 40 + 30 * (shard > 1))] for shard in range(4)}
    report = report_of(observations(lanes, [in_turn(2, 4)]), shards=4)
    assert [attempt.gpus for attempt in report.attempts] == [1.0] * 4
    assert report.device_seconds == 4 * 30.0
    assert [attempt.queue_seconds for attempt in report.attempts] == [10.0, 10.0, 0.0, 0.0]


def test_a_shard_killed_in_its_turn_ends_with_its_task() -> None:
    lanes = {0: [attempt_of("7_0", 10, 40)], 1: [attempt_of("7_0", 40)]}
    records = [record("7", 0, 5, 62, "FAILED", gpus=1)]
    report = report_of(observations(lanes, [in_turn(1, 2)], records), shards=2)
    assert [(one.outcome, one.wall_seconds) for one in report.attempts] == [("finished", 35.0), ("failed", 22.0)]
    assert report.device_seconds == 57.0


def test_unit_of_device_time_on_cpus_is_the_worker() -> None:
    observed = observations({0: [attempt_of("7_0", 10, 40)]}, [submission("embed", "7", array="0")], device="cpu")
    report = report_of(observed)
    assert (report.unit, report.device_seconds, report.attempts[0].gpus) == ("worker", 30.0, None)


def test_local_run_is_reported_from_its_manifest() -> None:
    files = {0: [finished_files("local", 0, 10, 17)]}
    report = report_of(
        observations({}, device="cuda", files=files), manifests={0: manifest(0, "local-0-ab")}, merged=True
    )
    (shard,) = report.shards
    assert (shard.wall_seconds, shard.device_seconds, shard.embedded_seconds) == (7.0, 7.0, 5.0)
    assert (shard.queue_seconds, shard.memory_peak, shard.cpus_used) == (None,) * 3
    assert shard.spent == Spent(embedded=5.0, starting=1.0, waiting=0.5, checking=0.5, lost=0.0, other=0.0)
    assert (report.unit, report.cost_ratio, report.device_ratio) == ("gpu", 0.5, 0.7)
    assert any("without Slurm" in note for note in report.notes)


def test_unknown_earlier_attempts_make_the_cost_unknown() -> None:
    files = {0: [finished_files("local", 0, 10, 17)]}
    report = report_of(observations({}, files=files), manifests={0: manifest(0, "local-0-ab", adopted=3)})
    assert report.shards[0].attempts_at_least
    assert report.shards[0].spent is None
    assert any("left chunks but no times" in note for note in report.notes)


def test_lost_time_excludes_chunks_that_are_kept() -> None:
    lane = [attempt_of("7_0", 10, 20, "failed", why="boom"), attempt_of("8_0", 30, 36)]
    report = report_of(
        observations({0: lane}, [EMBED, submission("embed", "8", array="0", gpus=1)]),
        manifests={0: manifest(0, "8_0-0-ab", adopted=3)},
    )
    spent = report.shards[0].spent
    assert spent is not None
    assert (spent.embedded, spent.lost, spent.total) == (5.0, 7.0, 16.0)  # three of the ten seconds are kept
    assert report.stages[1].attempts_lost == 1


def test_a_prediction_of_the_hash_engine_is_left_out() -> None:
    observed = observations({0: [attempt_of("7_0", 10, 40)]}, [EMBED])
    report = report_of(observed, manifests={0: manifest(0, "7_0-0-ab")}, engine="hash")
    assert (report.predicted_seconds, report.cost_ratio, report.shards[0].predicted_seconds) == (None,) * 3
    assert report_of(observed, manifests={0: manifest(0, "7_0-0-ab")}).cost_ratio == 0.5


@pytest.mark.parametrize(("live", "outcome"), [((), "failed"), (("7_0",), "running"), (None, "unknown")])
def test_queue_says_whether_an_attempt_still_runs(live: tuple[str, ...] | None, outcome: str) -> None:
    tasks = None if live is None else [LiveTask(Task("7", 0, "RUNNING", "", "n1", ""), "embed", (0,)) for _ in live]
    report = report_of(observations({0: [attempt_of("7_0", 10)]}, [EMBED], live=tasks, now=100.0))
    (attempt,) = report.attempts
    assert attempt.outcome == outcome
    assert attempt.ended == (T0 + 100 if outcome == "running" else None)
    assert report.shards[0].state == ("running" if outcome == "running" else "unfinished")


def test_shards_that_wait_are_queued() -> None:
    tasks = [LiveTask(Task("7", 1, "PENDING", "Priority", "", ""), "embed", (1,))]
    report = report_of(observations({}, [EMBED], live=tasks), shards=2)
    assert [shard.state for shard in report.shards] == ["unfinished", "queued"]


def test_seconds_in_a_log_do_not_depend_on_the_time_zone(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "module loaded\n"
        "2026-11-23 14:00:00,100 INFO job 7_0 on n1, start 0\n"
        "2026-11-23 14:00:31,100 INFO shard 0: 5 of 9 tokens, 1 a second, 4 s left\n"
        "slurmstepd: error: *** JOB 8 ON n1 CANCELLED AT 2026-11-23T13:01:00 ***\n"
        "2026-11-23 15:00:00,100 INFO job 7_0 on n2, start 1\n"
    )
    assert seconds_logged(tmp_path / "log") == {("7_0", 0): 31.0, ("7_0", 1): 0.0}
    assert seconds_logged(tmp_path / "none") == {}


def test_names_of_files_and_attempts_are_read() -> None:
    assert place_of("embed-00017") == ("embed", 17)
    assert place_of("merge") == ("merge", None)
    assert place_of("notes") is place_of("embed-x") is place_of("merge-") is None
    assert attempt_names("123_17-2-8a2f1706") == ("123_17", 2)
    assert attempt_names("local-0-8a2f1706") == ("local", 0)


WORDS = st.sampled_from(["finished", "stopped", "cancelled", "failed", None])
STATES = st.sampled_from(["COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT", "RUNNING", "STATE_OF_TOMORROW"])


@st.composite
def any_observations(draw: st.DrawFn) -> tuple[AttemptObservations, int, dict[int, Any]]:
    """Any history: shards requeued or resubmitted many times, events and records lost, clocks that differ."""
    shards = draw(st.integers(1, 4))
    seconds = st.floats(0, 500, allow_nan=False)
    lanes, records, manifests, left, writes = {}, [], {}, {}, {}
    for shard in range(shards):
        lane, at, restart = [], draw(seconds), 0
        for _ in range(draw(st.integers(0, 4))):
            job = draw(st.sampled_from(["7", "8", "9"]))
            name = f"{job}_{draw(st.sampled_from([shard, 0]))}"
            ended, word = at + draw(seconds), draw(WORDS)
            if draw(st.booleans()):
                skew = draw(st.floats(-8, 8))
                end = draw(st.sampled_from([None, ended + skew]))
                index = int(name.partition("_")[2])
                records.append(record(job, index, at + skew, end, draw(STATES), draw(seconds), draw(st.integers(0, 2))))
            if draw(st.booleans()):
                lane.append(attempt_of(name, at, None if word is None else ended, word or "failed", restart))
            if draw(st.booleans()):
                writes[("embed", shard), name, restart] = T0 + draw(seconds)
            if draw(st.booleans()):
                chunks = {10 * shard + 2 * n: (200, draw(st.floats(0, 200))) for n in range(draw(st.integers(0, 5)))}
                files = AttemptFiles(
                    job=draw(st.sampled_from([name, "local"])),
                    restart=restart,
                    node="n1",
                    started=draw(st.sampled_from([None, T0 + at])),
                    ended=draw(st.sampled_from([None, T0 + ended])),
                    finished=False,
                    chunks=chunks,
                )
                left.setdefault(shard, []).append(files)
            at, restart = ended + draw(seconds) - draw(st.sampled_from([0, 300])), restart + 1
        lanes[shard] = lane
        if lane and draw(st.booleans()):
            first = lane[-1]
            name = f"{first.job}-{first.restart}-ab"
            manifests[shard] = manifest(shard, name, draw(st.floats(0, 100)), draw(st.integers(0, 5)))
            left[shard] = [finished_files(first.job, first.restart, at, at + 5)]
    submissions = [
        submission(
            "embed",
            job,
            array=draw(st.sampled_from(["0-3", "0-3%1", "0-3%2"])),
            at=draw(seconds),
            after=after,
            gpus=gpus,
        )
        for job, after, gpus in (("7", [], draw(st.integers(0, 2))), ("8", ["7"], 0), ("9", ["8", "5"], 1))
        if draw(st.booleans())
    ]
    if draw(st.booleans()):
        in_turn = {"array": "0", "shards": f"0-{shards - 1}", "per_job": 4, "in_turn": draw(st.sampled_from([2, 4]))}
        submissions = [msgspec.structs.replace(line, **in_turn) for line in submissions]
    observed = observations(
        lanes,
        submissions,
        draw(st.sampled_from([None, records])),
        draw(st.sampled_from(["cpu", "cuda"])),
        now=draw(st.floats(0, 5000)),
        files=left,
        last_writes=writes,
        live=draw(st.sampled_from([None, ()])),
    )
    return observed, shards, manifests


def numbers(value: Any, name: str = "") -> list[tuple[str, float]]:
    """Every number of a report's JSON, with its key."""
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in numbers(inner, key)]
    if isinstance(value, list | tuple):
        return [found for inner in value for found in numbers(inner, name)]
    return [(name, value)] if isinstance(value, int | float) else []


@given(any_observations())
@tries(150)
def test_times_add_up_and_nothing_is_negative(
    given_: tuple[AttemptObservations, int, dict[int, Any]],
) -> None:
    observed, shards, manifests = given_
    report = report_of(observed, shards=shards, manifests=manifests)
    for name, value in numbers(msgspec.to_builtins(report)):
        assert value >= 0, name
        assert not name.endswith("_share") or value <= 1, name
    embed = next(stage for stage in report.stages if stage.stage == "embed")
    for of in ("wall_seconds", "queue_seconds", "device_seconds"):
        known = [value for shard in report.shards if (value := getattr(shard, of)) is not None]
        whole = getattr(embed, of)
        assert (whole is None) == (not known)
        assert whole is None or whole == pytest.approx(sum(known))
    assert embed.attempts == len(report.attempts) == sum(shard.attempts for shard in report.shards)
    assert embed.attempts >= sum(len(lane) for lane in observed.attempts.values())
    for shard in report.shards:
        if shard.spent is not None:
            assert shard.spent.total == pytest.approx(shard.device_seconds)
    for attempt in report.attempts:
        if attempt.wall_seconds is not None:
            assert attempt.started is not None
            assert attempt.ended is not None
            assert attempt.wall_seconds == attempt.ended - attempt.started
        assert (
            attempt.outcome != "running"
            or attempt.ended is None
            or attempt.ended <= max(observed.now, attempt.started or 0)
        )


@given(any_observations())
@tries(50)
def test_report_is_deterministic_and_survives_json(
    given_: tuple[AttemptObservations, int, dict[int, Any]],
) -> None:
    observed, shards, manifests = given_
    report = report_of(observed, shards=shards, manifests=manifests)
    assert report == report_of(observed, shards=shards, manifests=manifests)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


@pytest.mark.parametrize("error", [240.0, -240.0])
def test_a_node_with_a_wrong_clock_makes_no_absurd_times(error: float) -> None:
    """As read_inputs does: the times of attempts are corrected before anything is computed."""
    lane = [attempt_of("7_0", 10 + error, 40 + error, node="n3")]
    records = [record("7", 0, 8, 42, "COMPLETED", eligible=3, gpus=1)]
    clocks = clock_errors(lane, [EMBED], records, T0 + 100)
    observed = replace(
        observations({0: with_right_times(lane, clocks)}, [EMBED], records), clock_errors=clocks, now=T0 + 100
    )
    report = report_of(observed)
    (attempt,) = report.attempts
    assert (attempt.wall_seconds, attempt.queue_seconds, attempt.device_seconds) == (34.0, 5.0, 34.0)
    assert "the clock of n3 is 4 min" in report.notes[0]
