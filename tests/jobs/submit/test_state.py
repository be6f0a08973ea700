"""What is left to submit, decided from what is whole and what Slurm says; and how what Slurm says is read."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_fields

from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
from embedkit.errors import EmbedkitError
from embedkit.job import JobContext
from embedkit.run import RunFolder
from jobs.profiles.values import Resources, Stage
from jobs.records.attempts import LIMIT, NO_EXIT_RECORD, Attempts
from jobs.records.groups import group_of, groups
from jobs.records.submissions import COMMENT, LiveTask, Submissions, new_submission
from jobs.slurm.client import (
    Task,
    array_indices,
    array_spec,
    own_environment,
    parse_configuration,
    parse_queue,
)
from jobs.submit.chain import ChainJob, whole_chain
from jobs.submit.state import SubmissionPlan, SubmissionState, plan_submission, read_state
from tests.support.fuzzing import tries

PARALLEL = 4

# Standings


def live(
    stage: Stage,
    job: str,
    index: int | None = None,
    state: str = "RUNNING",
    reason: str = "None",
    shards: tuple[int, ...] = (),
) -> LiveTask:
    """A task; one of an array has the shard of its index, unless it is said which."""
    own = shards or (() if index is None else (index,))
    return LiveTask(Task(job, index, state, reason, "", ""), stage, own)


PER_JOB = st.sampled_from([1, 1, 2, 3])


def shards_of(tasks: Iterable[LiveTask]) -> set[int]:
    return {shard for task in tasks for shard in task.shards}


STATES = st.sampled_from(
    [
        *(("PENDING", "Dependency"), ("PENDING", "Priority"), ("PENDING", "DependencyNeverSatisfied")),
        *(("RUNNING", "None"), ("COMPLETING", "None"), ("SUSPENDED", "None"), ("A_STATE_OF_TOMORROW", "None")),
    ]
)


@st.composite
def standings(draw: st.DrawFn) -> SubmissionState:
    """Any: shards finished, lost, poisoned; jobs of every stage in any state; merges that wait for some of them."""
    shards = draw(st.integers(1, 6))
    planned = draw(st.booleans())
    everything = set(range(shards))
    problems = draw(st.sets(st.sampled_from(sorted(everything)))) if planned else everything
    repeat_failures = draw(st.sets(st.sampled_from(sorted(problems)))) if problems else set()
    tasks: list[LiveTask] = []
    for number, stage in enumerate(("prepare", "preflight", "embed", "embed", "merge", "merge", "analyze")):
        if not draw(st.booleans()):
            continue
        if stage != "embed":
            tasks.append(live(stage, str(10 + number), None, *draw(STATES)))  # type: ignore[arg-type]
            continue
        asked = sorted(draw(st.sets(st.sampled_from(sorted(everything)), min_size=1)))
        for group in groups(asked, draw(PER_JOB)):
            tasks.append(live("embed", str(10 + number), group[0], *draw(STATES), shards=group))
    embedding = sorted({task.task.job for task in tasks if task.stage == "embed"})
    return SubmissionState(
        shards=shards,
        planned=planned,
        merged=planned and not problems and draw(st.booleans()),
        preflight_wanted=draw(st.booleans()),
        problems=dict.fromkeys(sorted(problems), "not finished"),
        repeat_failures=dict.fromkeys(sorted(repeat_failures), "RuntimeError: boom"),
        live=tuple(tasks),
        waits_for=frozenset(draw(st.sets(st.sampled_from([*embedding, "3"])))),
        analyze_wanted=draw(st.booleans()),
    )


@dataclass
class Slurm:
    """What Slurm would show once a decision was followed."""

    state: SubmissionState
    waits: dict[str, frozenset[str]] = field(default_factory=dict)
    submitted: int = 0

    def follow(self, decision: SubmissionPlan) -> None:
        tasks = [task for task in self.state.live if task.task.name not in decision.cancel]
        ids: dict[str, str] = {}
        waits_for = self.state.waits_for
        for job in decision.submit:
            self.submitted += 1
            ids[job.stage] = str(100 + self.submitted)
            ready = job.after(ids)
            assert all(name.isdecimal() for name in (*ready.after_ok, *ready.after_any)), ready  # none is yet to come
            for group in job.groups if job.indices is not None else ((),):
                index = group[0] if group else None
                tasks.append(live(job.stage, ids[job.stage], index, "PENDING", "Dependency", group))
            self.waits[ids[job.stage]] = frozenset((*ready.after_ok, *ready.after_any))
            if job.stage == "merge":
                waits_for = self.waits[ids["merge"]]
        self.state = replace(self.state, live=tuple(tasks), waits_for=waits_for)

    def all_goes_well(self) -> None:
        """Every task that can still run does so and succeeds; a merge that began earlier comes too early."""
        at = self.state
        planned = at.planned or bool(at.live_of("prepare"))
        before = any(task.task.state != "PENDING" for task in at.live_of("merge")) and planned and not at.problems
        done = shards_of(at.live_of("embed")) if planned else set()
        problems = {shard: why for shard, why in at.problems.items() if shard not in done}
        after = any(task.task.state == "PENDING" for task in at.live_of("merge")) and planned and not problems
        merged = at.merged or before or after
        stuck = tuple(task for task in at.live if task.task.is_stuck)
        self.state = replace(at, planned=planned, problems=problems, repeat_failures={}, merged=merged, live=stuck)


def submitted(decision: SubmissionPlan, stage: Stage) -> ChainJob | None:
    found = [job for job in decision.submit if job.stage == stage]
    assert len(found) <= 1
    return found[0] if found else None


@tries(100)
@given(standings(), PER_JOB)
def test_only_shards_that_are_lost_are_submitted(state: SubmissionState, per_job: int) -> None:
    """Neither finished ones, nor those that are queued or running, nor repeat_failures."""
    decision = plan_submission(state, PARALLEL, per_job=per_job)
    embed = submitted(decision, "embed")
    if embed is None:
        return
    assert embed.indices
    assert embed.parallel == PARALLEL
    assert list(embed.indices) == sorted(set(embed.indices))
    assert set(embed.indices) <= set(state.problems) - set(state.repeat_failures)
    left = shards_of(task for task in state.live_of("embed") if task.task.name not in decision.cancel)
    assert not set(embed.indices) & left


@tries(100)
@given(standings(), PER_JOB)
def test_no_shard_that_is_lost_is_forgotten(state: SubmissionState, per_job: int) -> None:
    decision = plan_submission(state, PARALLEL, per_job=per_job)
    after = Slurm(state)
    after.follow(decision)
    covered = shards_of(after.state.live_of("embed"))
    assert set(state.problems) - set(state.repeat_failures) <= covered


@tries(80)
@given(standings(), st.data())
def test_shards_that_are_asked_for_are_run_though_they_are_poison_and_no_others(
    state: SubmissionState, data: st.DataObject
) -> None:
    only = data.draw(st.sets(st.integers(0, state.shards - 1), min_size=1))
    decision = plan_submission(state, PARALLEL, only)
    again = submitted(decision, "prepare") is not None
    living = set() if again else shards_of(state.live_of("embed"))
    embed = submitted(decision, "embed")
    assert set(embed.indices or () if embed else ()) == (only & set(state.problems)) - living


@tries(200)
@example(SubmissionState(1, True, False, False, {0: "lost"}, live=(live("embed", "5", 0), live("merge", "6"))), 1)
@given(standings(), PER_JOB)
def test_a_decision_that_was_followed_leaves_nothing_to_decide(state: SubmissionState, per_job: int) -> None:
    slurm = Slurm(state)
    slurm.follow(plan_submission(state, PARALLEL, per_job=per_job))
    assert plan_submission(slurm.state, PARALLEL, per_job=per_job) == SubmissionPlan()


@tries(80)
@given(standings(), st.data())
def test_asking_for_the_same_shards_again_gives_nothing(state: SubmissionState, data: st.DataObject) -> None:
    only = data.draw(st.sets(st.integers(0, state.shards - 1), min_size=1))
    slurm = Slurm(state)
    slurm.follow(plan_submission(state, PARALLEL, only))
    assert plan_submission(slurm.state, PARALLEL, only) == SubmissionPlan()


@tries(200)
@given(standings())
def test_a_merge_follows_all_that_embeds(state: SubmissionState) -> None:
    """With an embed comes a merge that waits for it and for every array that is alive."""
    decision = plan_submission(state, PARALLEL)
    slurm = Slurm(state)
    slurm.follow(decision)
    embedding = {task.task.job for task in slurm.state.live_of("embed")}
    if submitted(decision, "embed"):
        assert submitted(decision, "merge")
    merges = [task.task for task in slurm.state.live_of("merge")]
    waits = [slurm.waits.get(merge.job, state.waits_for) for merge in merges if merge.state == "PENDING"]
    assert not embedding or any(embedding <= jobs for jobs in waits)


@tries(200)
@given(standings())
def test_a_merge_takes_its_analysis_with_it_where_one_is_wanted(state: SubmissionState) -> None:
    decision = plan_submission(state, PARALLEL)
    analysis = submitted(decision, "analyze")
    assert analysis is None or state.analyze_wanted
    if submitted(decision, "merge"):
        assert (analysis is not None) == state.analyze_wanted
        assert analysis is None or analysis.after_ok == ("merge",)
        waiting = {task.task.name for task in state.live_of("analyze") if task.task.state == "PENDING"}
        assert waiting <= set(decision.cancel)
    kept = [task for task in state.live_of("merge") if task.task.name not in decision.cancel]
    if state.analyze_wanted and (state.merged or kept):
        assert analysis is not None or state.live_of("analyze")


@tries(100)
@given(standings())
def test_two_merges_never_run_at_once(state: SubmissionState) -> None:
    decision = plan_submission(state, PARALLEL)
    merge = submitted(decision, "merge")
    if merge is None:
        return
    for task in state.live_of("merge"):
        assert task.task.name in decision.cancel or task.task.job in merge.after_any


@tries(100)
@given(standings())
def test_nothing_is_submitted_twice_nor_cancelled_that_may_succeed(state: SubmissionState) -> None:
    decision = plan_submission(state, PARALLEL)
    stages = [job.stage for job in decision.submit]
    assert len(set(stages)) == len(stages)
    assert stages == sorted(stages, key=("prepare", "preflight", "embed", "merge", "analyze").index)
    for stage in ("prepare", "preflight"):
        if state.live_of(stage):
            assert stage not in stages
    if "prepare" not in stages:
        wanted = {task.task.name for stage in ("prepare", "preflight", "embed") for task in state.live_of(stage)}
        assert not wanted & set(decision.cancel)
        running = {task.task.name for task in state.live_of("merge") if task.task.state != "PENDING"}
        assert not running & set(decision.cancel)


@tries(100)
@given(standings())
def test_what_waits_in_vain_is_cancelled(state: SubmissionState) -> None:
    decision = plan_submission(state, PARALLEL)
    assert {task.task.name for task in state.live if task.task.is_stuck} <= set(decision.cancel)


@tries(100)
@given(standings())
def test_prepare_again_takes_with_it_all_that_waited_for_the_old_one(state: SubmissionState) -> None:
    decision = plan_submission(state, PARALLEL)
    assert (submitted(decision, "prepare") is not None) == (not state.planned and not state.live_of("prepare"))
    if submitted(decision, "prepare"):
        waiting = {task.task.name for task in state.live if task.stage in ("embed", "merge")}
        waiting |= {task.task.name for task in state.live_of("analyze") if task.task.state == "PENDING"}
        assert waiting <= set(decision.cancel)
        embed = submitted(decision, "embed")
        assert embed is None or "prepare" in embed.after_ok


@tries(100)
@given(standings())
def test_an_embed_waits_for_the_prepare_and_the_preflight_that_it_needs(state: SubmissionState) -> None:
    embed = submitted(plan_submission(state, PARALLEL), "embed")
    if embed is None:
        return
    preparing = {task.task.job for task in state.live_of("prepare")} or {"prepare"}
    trying = {task.task.job for task in state.live_of("preflight")} or {"preflight"}
    assert set(embed.after_ok) == (set() if state.planned else preparing) | (
        trying if state.preflight_wanted else set()
    )


@tries(200)
@given(standings(), PER_JOB)
def test_if_all_goes_well_the_run_is_merged(state: SubmissionState, per_job: int) -> None:
    """After one decision; repeat_failures aside, which waits for somebody to look at it."""
    slurm = Slurm(replace(state, repeat_failures={}))
    slurm.follow(plan_submission(slurm.state, PARALLEL, per_job=per_job))
    slurm.all_goes_well()
    assert slurm.state.merged
    left = plan_submission(replace(slurm.state, analyze_wanted=False), PARALLEL, per_job=per_job)
    assert left == SubmissionPlan()


@pytest.mark.parametrize("preflight", [True, False])
def test_a_new_run_is_the_whole_chain_and_a_merged_one_nothing(preflight: bool) -> None:
    new = SubmissionState(3, False, False, preflight, dict.fromkeys(range(3), "not prepared"))
    assert list(plan_submission(new, PARALLEL).submit) == whole_chain(3, PARALLEL, preflight)
    wanted = replace(new, analyze_wanted=True)
    assert list(plan_submission(wanted, PARALLEL).submit) == whole_chain(3, PARALLEL, preflight, analyze=True)
    merged = SubmissionState(3, True, True, False, {})
    assert plan_submission(merged, PARALLEL) == SubmissionPlan()
    assert plan_submission(replace(merged, analyze_wanted=True), PARALLEL).submit == (ChainJob("analyze"),)


def test_a_merge_that_began_too_early_is_no_merge_of_what_still_runs() -> None:
    """The newest merge was cancelled by hand; the one before it runs, and waited for other arrays."""
    state = SubmissionState(
        *(2, True, False, False, {1: "lost"}),
        live=(live("embed", "20", 1), live("merge", "9")),
        waits_for=frozenset(("20", "9")),
    )
    assert plan_submission(state, PARALLEL).submit == (ChainJob("merge", after_any=("20", "9")),)


# Arrays


@tries(80)
@given(st.sets(st.integers(0, 5000), min_size=1), st.none() | st.integers(1, 500))
def test_an_array_reads_back_as_it_was_written(indices: set[int], parallel: int | None) -> None:
    job = ChainJob("embed", indices=tuple(sorted(indices)), parallel=parallel)
    assert array_indices(job.array) == job.indices
    assert array_indices(array_spec(sorted(indices))) == job.indices
    assert job.array.endswith("" if parallel is None else f"%{parallel}")


def test_an_array_that_slurm_writes_with_a_step_is_read() -> None:
    assert array_indices("0-34:2%4") == tuple(range(0, 35, 2))
    assert [task.index for task in parse_queue("7|1,5-9:2|PENDING|Priority||lab|normal|N/A|x\n")] == [1, 5, 7, 9]
    assert [task.index for task in parse_queue("7|1-9,...|PENDING|Priority||lab|normal|N/A|x\n")] == [None]


def test_an_array_is_written_briefly() -> None:
    assert array_spec([0, 1, 2, 17, 20, 21]) == "0-2,17,20-21"
    assert array_spec(range(1000)) == "0-999"


# What Slurm 22.05 printed; nothing of it is made up but where it says so.

QUEUE = """\
9|N/A|RUNNING|None|n5|lab|normal|2026-11-22T22:38:18|(null)
1|2|PENDING|JobArrayTaskLimit||lab|normal|N/A|embedkit-ab|c d
2|N/A|PENDING|Dependency||lab|normal|N/A|embedkit-0123
6|N/A|PENDING|DependencyNeverSatisfied||lab|normal|N/A|embedkit-stuck
8|3|PENDING|JobHeldUser||small|normal|N/A|(null)
1|0|RUNNING|None|n1|lab|normal|2026-11-22T22:38:19|embedkit-ab|c d
9|N/A|PENDING|BeginTime||lab|normal|2026-11-22T22:40:00|(null)
1|2-9%2|PENDING|JobArrayTaskLimit||lab|normal|N/A|embedkit-ab|c d
13|N/A|PENDING|JobHeldUser||lab|normal|N/A|two
lines
"""
CONFIGURATION = """\
Configuration data as of 2026-11-22T22:38:18
AccountingStorageBackupHost = (null)
AccountingStorageEnforce = associations,limits
AuthInfo                = socket=/tmp/a b/munge/socket,cred_expire=5
MailDomain              =
MaxArraySize            = 1001
MaxJobCount             = 10000

Slurmctld(primary) at vm is UP
"""


def test_the_queue_is_read_whatever_others_wrote_into_their_comments() -> None:
    """The last job is another of the user's, with a line break in its comment."""
    tasks = parse_queue(QUEUE)
    assert len(tasks) == 16
    assert tasks[0] == Task("9", None, "RUNNING", "None", "n5", "(null)", "lab", "normal", 1795387098.0)
    assert tasks[1] == Task("1", 2, "PENDING", "JobArrayTaskLimit", "", "embedkit-ab|c d", "lab", "normal")
    assert [task.name for task in tasks] == [
        *("9", "1_2", "2", "6", "8_3", "1_0", "9"),
        *(f"1_{index}" for index in range(2, 10)),
        "13",
    ]
    assert [task.job for task in tasks if task.is_stuck] == ["6"]
    assert parse_queue("") == []


def test_states_of_later_versions_are_kept_as_they_are() -> None:
    """Made up."""
    (task,) = parse_queue("5|1|STATE_OF_TOMORROW|a reason|n[1-2]|lab|normal|N/A|x\n")
    assert (task.state, task.reason, task.is_stuck) == ("STATE_OF_TOMORROW", "a reason", False)


def test_the_configuration_is_read() -> None:
    found = parse_configuration(CONFIGURATION)
    assert found["MaxArraySize"] == "1001"
    assert found["AccountingStorageEnforce"] == "associations,limits"
    assert found["AuthInfo"] == "socket=/tmp/a b/munge/socket,cred_expire=5"


def test_what_a_surrounding_job_and_the_hub_left_in_the_environment_is_hidden_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = {"SLURM_JOB_ID": "1", "SBATCH_PARTITION": "x", "SRUN_DEBUG": "3", "SUBMITIT_EXECUTOR": "x", "HF_TOKEN": "t"}
    for name, value in (left | {"SLURM_CONF": "/c", "OMP_NUM_THREADS": "2"}).items():
        monkeypatch.setenv(name, value)
    with own_environment():
        assert not left.keys() & os.environ.keys()
        assert os.environ["SLURM_CONF"] == "/c"
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert left.items() <= os.environ.items()


# Which tasks are a run's


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.logs.mkdir(parents=True)
    return run


def test_tasks_are_found_by_their_job_or_by_the_tag_in_their_comment(run: RunFolder) -> None:
    record = Submissions(run)
    asked = new_submission("embed", "0-2%2", "afterok:4", "submit", "/p.toml", Resources(time=60))
    record.add(asked)
    queue = [
        Task("7", 0, "RUNNING", "None", "n1", f"embedkit-{asked.tag}"),
        Task("8", None, "PENDING", "Priority", "", "embedkit-"),
        Task("9", None, "PENDING", "Priority", "", "(null)"),
    ]
    assert record.live(queue) == [LiveTask(queue[0], "embed", (0,))]
    assert record.last("embed") is None
    assert asked.indices == (0, 1, 2)
    assert asked.waits_for == ("4",)


def test_a_task_with_several_shards_is_known_by_the_first_of_them(run: RunFolder) -> None:
    record = Submissions(run)
    resources = Resources(gpus=2, gpus_per_job=2)
    asked = new_submission("embed", "1,7,9%2", "", "rerun", "/p.toml", resources, "1,5,7-9")
    record.add(replace_fields(asked, what="submitted", job="7"))
    assert asked.groups == {1: (1, 5), 7: (7, 8), 9: (9,)}
    assert asked.index_of == {1: 1, 5: 1, 7: 7, 8: 7, 9: 9}
    queue = [Task("7", index, "RUNNING", "None", "n1", "") for index in (7, None)]
    assert [task.shards for task in record.live(queue)] == [(7, 8), (1, 5, 7, 8, 9)]
    assert asked.log_of(7) == "embed-job-00007"


@given(st.sets(st.integers(0, 2000), min_size=1), st.integers(1, 9))
def test_every_shard_is_in_one_group_that_its_first_names(shards: set[int], per_job: int) -> None:
    job = ChainJob("embed", indices=tuple(sorted(shards)), parallel=8, per_job=per_job)
    assert [shard for group in job.groups for shard in group] == sorted(shards)
    assert all(1 <= len(group) <= per_job for group in job.groups)
    assert list(array_indices(job.array)) == [group[0] for group in job.groups]
    assert job.array.endswith(f"%{max(8 // per_job, 1)}")
    for group in job.groups:
        assert group_of(group[0], job.indices or (), per_job) == group
    with pytest.raises(EmbedkitError, match="begins no group"):
        group_of(2001, job.indices or (), per_job)


def test_lines_that_a_kill_cut_short_are_left_out_and_do_no_harm(run: RunFolder) -> None:
    record = Submissions(run)
    first, second = (new_submission("merge", "", "", why, "/p.toml", Resources()) for why in ("submit", "rerun"))
    record.add(first)
    with run.submissions.open("ab") as file:
        file.write(b'{"seal": "0123')
    assert record.read() == [first]
    record.add(second)
    assert record.read() == [first, second]


# How starts went


@dataclass
class Shard:
    """A shard's starts, as its jobs would note them."""

    attempts: Attempts
    monkeypatch: pytest.MonkeyPatch
    started: int = 0

    def start(self, done: int) -> None:
        self.started += 1
        self.monkeypatch.setattr("embedkit.job._current", JobContext(name=str(self.started), id=str(self.started)))
        self.attempts.add("started", done, "")

    def failed(self, why: str, done: int = 0) -> None:
        self.start(done)
        self.attempts.add("failed", done, why)

    def died(self, done: int = 0) -> None:
        self.start(done)

    def stopped(self, done: int = 0, then: int | None = None) -> None:
        self.start(done)
        self.attempts.add("stopped", done if then is None else then, "SIGUSR2")

    def cancelled(self) -> None:
        self.start(0)
        self.attempts.add("cancelled", 0, "")


@pytest.fixture
def shard(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Shard:
    return Shard(Attempts(run, "embed", 17), monkeypatch)


def test_poison_is_a_shard_that_failed_the_same_way_three_times(shard: Shard) -> None:
    for _ in range(LIMIT - 1):
        shard.failed("RuntimeError: bad at 0x7f12\nmore")
        assert shard.attempts.repeat_failure() is None
    shard.failed("RuntimeError: bad at 0xdead\nother lines")
    assert shard.attempts.repeat_failure() == "RuntimeError: bad at 0x"


def test_starts_that_ended_without_a_word_are_alike(shard: Shard) -> None:
    for _ in range(LIMIT):
        assert shard.attempts.repeat_failure() is None
        shard.died()
    assert shard.attempts.repeat_failure() == NO_EXIT_RECORD


def test_another_failure_or_progress_is_no_poison(shard: Shard) -> None:
    shard.failed("one")
    shard.failed("one")
    shard.failed("another")
    assert shard.attempts.repeat_failure() is None
    shard.failed("another")
    shard.failed("another", done=1)
    assert shard.attempts.repeat_failure() is None
    for _ in range(2):
        shard.failed("another", done=1)
    assert shard.attempts.repeat_failure() == "another"


def test_stops_and_cancellations_are_no_failures_but_do_not_excuse_them(shard: Shard) -> None:
    shard.stopped()
    shard.cancelled()
    shard.failed("one")
    shard.stopped()
    shard.failed("one")
    shard.cancelled()
    assert shard.attempts.repeat_failure() is None
    shard.failed("one")
    assert shard.attempts.repeat_failure() == "one"


def test_stops_are_in_vain_as_long_as_nothing_more_is_done(shard: Shard) -> None:
    shard.stopped(0, then=2)
    shard.start(2)
    assert shard.attempts.stops_without_progress(5) == 0
    shard.attempts.add("stopped", 2, "SIGUSR2")
    shard.stopped(2)
    shard.start(2)
    assert shard.attempts.stops_without_progress(2) == 2
    assert shard.attempts.stops_without_progress(3) == 0


def test_a_failure_in_between_ends_the_count_of_stops(shard: Shard) -> None:
    shard.stopped()
    shard.failed("one")
    shard.stopped()
    shard.start(0)
    assert shard.attempts.stops_without_progress(0) == 1


def test_requeued_starts_of_one_job_are_told_apart_and_damaged_lines_left_out(run: RunFolder, shard: Shard) -> None:
    for restart in range(3):
        shard.monkeypatch.setattr("embedkit.job._current", JobContext(name="7", id="7", restart=restart))
        shard.attempts.add("started", 0, "")
        shard.attempts.add("stopped", 0, "SIGTERM")
    path = run.logs / "embed-00017.attempts.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["restart"] for line in lines] == [0, 0, 1, 1, 2, 2]
    path.write_bytes(b"".join([*lines[:3], lines[3][:-9] + b"\n", *lines[4:]]) + b'{"cut')
    assert [attempt.outcome for attempt in shard.attempts.attempts()] == ["stopped", "failed", "stopped"]


def test_a_task_that_a_stand_in_queue_shows_at_the_second_look_alone_is_not_lost(
    prepared_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For some seconds a task that is being requeued may be in no queue."""
    asked = new_submission("embed", "0-2", "", "submit", "test", Resources())
    Submissions(prepared_run).add(asked)
    looks: list[list[Task]] = [
        [],
        [Task("7", shard, "PENDING", "BeginTime", "", COMMENT + asked.tag) for shard in range(3)],
    ]
    monkeypatch.setattr("jobs.submit.state.queue", lambda: looks.pop(0))
    monkeypatch.setattr("jobs.submit.state.SECOND_LOOK_SECONDS", 0.0)
    state = read_state(prepared_run, read(prepared_run.config, RunConfig), 3)
    assert [job.stage for job in plan_submission(state, 4).submit] == ["merge"]
