"""The plan of what to submit, from the state of the run and the queue; and the records of earlier starts."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_fields

from embedkit.documents.codec import decode_line, encode_line, read, sealed, write
from embedkit.documents.schema import RunConfig, ShardManifest
from embedkit.errors import EmbedkitError, GpuDiffers, GpuHeld
from embedkit.job import JobContext
from embedkit.run import RunFolder
from jobs.profiles.load import load_profile
from jobs.profiles.schema import Resources, Stage
from jobs.records.attempts import MAX_ATTEMPTS_WITHOUT_PROGRESS, NO_EXIT_RECORD, NO_PROGRESS, Attempts
from jobs.records.groups import group_of, groups
from jobs.records.submission import COMMENT_PREFIX, Submission, new_submission
from jobs.records.submissions import LiveTask, Submissions
from jobs.slurm.client import (
    Task,
    array_indices,
    array_spec,
)
from jobs.submit.chain import ChainJob, whole_chain
from jobs.submit.plan import SubmissionPlan, plan_submission
from jobs.submit.script import make_script
from jobs.submit.state import SubmissionState, default_allow_mixed, read_state
from tests.conftest import embedkit
from tests.support.fuzzing import tries

PARALLEL = 4

# States of a run


def live(
    stage: Stage,
    job: str,
    index: int | None = None,
    state: str = "RUNNING",
    reason: str = "None",
    shards: tuple[int, ...] = (),
) -> LiveTask:
    """A task; an array task has the shard of its index unless `shards` says otherwise."""
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
def run_states(draw: st.DrawFn) -> SubmissionState:
    """Any state: shards finished, lost or failed repeatedly; jobs of every stage; merges that wait for some of them."""
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
        merge_dependencies=frozenset(draw(st.sets(st.sampled_from([*embedding, "3"])))),
        analyze_wanted=draw(st.booleans()),
    )


@dataclass
class Slurm:
    """What Slurm would show once a plan was carried out."""

    state: SubmissionState
    waits: dict[str, frozenset[str]] = field(default_factory=dict)
    submitted: int = 0

    def carry_out(self, plan: SubmissionPlan) -> None:
        tasks = [task for task in self.state.live if task.task.name not in plan.cancel]
        ids: dict[str, str] = {}
        merge_dependencies = self.state.merge_dependencies
        for job in plan.submit:
            self.submitted += 1
            ids[job.stage] = str(100 + self.submitted)
            ready = job.with_job_ids(ids)
            assert all(name.isdecimal() for name in (*ready.after_ok, *ready.after_any)), ready  # none is yet to come
            for group in job.groups if job.indices is not None else ((),):
                index = group[0] if group else None
                tasks.append(live(job.stage, ids[job.stage], index, "PENDING", "Dependency", group))
            self.waits[ids[job.stage]] = frozenset((*ready.after_ok, *ready.after_any))
            if job.stage == "merge":
                merge_dependencies = self.waits[ids["merge"]]
        self.state = replace(self.state, live=tuple(tasks), merge_dependencies=merge_dependencies)

    def all_goes_well(self) -> None:
        """Every task that can still run succeeds; a merge that started earlier ran too early."""
        at = self.state
        planned = at.planned or bool(at.live_of("prepare"))
        before = any(task.task.state != "PENDING" for task in at.live_of("merge")) and planned and not at.problems
        done = shards_of(at.live_of("embed")) if planned else set()
        problems = {shard: why for shard, why in at.problems.items() if shard not in done}
        after = any(task.task.state == "PENDING" for task in at.live_of("merge")) and planned and not problems
        merged = at.merged or before or after
        stuck = tuple(task for task in at.live if task.task.never_starts)
        self.state = replace(at, planned=planned, problems=problems, repeat_failures={}, merged=merged, live=stuck)


def submitted(plan: SubmissionPlan, stage: Stage) -> ChainJob | None:
    found = [job for job in plan.submit if job.stage == stage]
    assert len(found) <= 1
    return found[0] if found else None


@tries(100)
@given(run_states(), PER_JOB)
def test_only_shards_that_are_lost_are_submitted(state: SubmissionState, per_job: int) -> None:
    """No finished shards, none that are queued or running, and no repeat_failures."""
    plan = plan_submission(state, PARALLEL, per_job=per_job)
    embed = submitted(plan, "embed")
    if embed is None:
        return
    assert embed.indices
    assert embed.parallel == PARALLEL
    assert list(embed.indices) == sorted(set(embed.indices))
    assert set(embed.indices) <= set(state.problems) - set(state.repeat_failures)
    left = shards_of(task for task in state.live_of("embed") if task.task.name not in plan.cancel)
    assert not set(embed.indices) & left


@tries(100)
@given(run_states(), PER_JOB)
def test_no_shard_that_is_lost_is_forgotten(state: SubmissionState, per_job: int) -> None:
    plan = plan_submission(state, PARALLEL, per_job=per_job)
    after = Slurm(state)
    after.carry_out(plan)
    covered = shards_of(after.state.live_of("embed"))
    assert set(state.problems) - set(state.repeat_failures) <= covered


@tries(80)
@given(run_states(), st.data())
def test_requested_shards_run_even_after_repeat_failures(state: SubmissionState, data: st.DataObject) -> None:
    only = data.draw(st.sets(st.integers(0, state.shards - 1), min_size=1))
    plan = plan_submission(state, PARALLEL, only)
    again = submitted(plan, "prepare") is not None
    active = set() if again else shards_of(state.live_of("embed"))
    embed = submitted(plan, "embed")
    assert set(embed.indices or () if embed else ()) == (only & set(state.problems)) - active


@tries(100)
@example(SubmissionState(1, True, False, False, {0: "lost"}, live=(live("embed", "5", 0), live("merge", "6"))), 1)
@given(run_states(), PER_JOB)
def test_a_plan_that_was_carried_out_leaves_nothing_to_plan(state: SubmissionState, per_job: int) -> None:
    slurm = Slurm(state)
    slurm.carry_out(plan_submission(state, PARALLEL, per_job=per_job))
    assert plan_submission(slurm.state, PARALLEL, per_job=per_job) == SubmissionPlan()


@tries(80)
@given(run_states(), st.data())
def test_requesting_the_same_shards_again_gives_nothing(state: SubmissionState, data: st.DataObject) -> None:
    only = data.draw(st.sets(st.integers(0, state.shards - 1), min_size=1))
    slurm = Slurm(state)
    slurm.carry_out(plan_submission(state, PARALLEL, only))
    assert plan_submission(slurm.state, PARALLEL, only) == SubmissionPlan()


@tries(100)
@given(run_states())
def test_a_merge_follows_every_embed(state: SubmissionState) -> None:
    """An embed comes with a merge that waits for it and for every active array."""
    plan = plan_submission(state, PARALLEL)
    slurm = Slurm(state)
    slurm.carry_out(plan)
    embedding = {task.task.job for task in slurm.state.live_of("embed")}
    if submitted(plan, "embed"):
        assert submitted(plan, "merge")
    merges = [task.task for task in slurm.state.live_of("merge")]
    waits = [slurm.waits.get(merge.job, state.merge_dependencies) for merge in merges if merge.state == "PENDING"]
    assert not embedding or any(embedding <= jobs for jobs in waits)


@tries(100)
@given(run_states())
def test_a_merge_takes_its_analysis_with_it_where_one_is_wanted(state: SubmissionState) -> None:
    plan = plan_submission(state, PARALLEL)
    analysis = submitted(plan, "analyze")
    assert analysis is None or state.analyze_wanted
    if submitted(plan, "merge"):
        assert (analysis is not None) == state.analyze_wanted
        assert analysis is None or analysis.after_ok == ("merge",)
        waiting = {task.task.name for task in state.live_of("analyze") if task.task.state == "PENDING"}
        assert waiting <= set(plan.cancel)
    kept = [task for task in state.live_of("merge") if task.task.name not in plan.cancel]
    if state.analyze_wanted and (state.merged or kept):
        assert analysis is not None or state.live_of("analyze")


@tries(100)
@given(run_states())
def test_two_merges_never_run_at_once(state: SubmissionState) -> None:
    plan = plan_submission(state, PARALLEL)
    merge = submitted(plan, "merge")
    if merge is None:
        return
    for task in state.live_of("merge"):
        assert task.task.name in plan.cancel or task.task.job in merge.after_any


@tries(100)
@given(run_states())
def test_nothing_is_submitted_twice_nor_cancelled_that_may_succeed(state: SubmissionState) -> None:
    plan = plan_submission(state, PARALLEL)
    stages = [job.stage for job in plan.submit]
    assert len(set(stages)) == len(stages)
    assert stages == sorted(stages, key=("prepare", "preflight", "embed", "merge", "analyze").index)
    for stage in ("prepare", "preflight"):
        if state.live_of(stage):
            assert stage not in stages
    if "prepare" not in stages:
        wanted = {task.task.name for stage in ("prepare", "preflight", "embed") for task in state.live_of(stage)}
        assert not wanted & set(plan.cancel)
        running = {task.task.name for task in state.live_of("merge") if task.task.state != "PENDING"}
        assert not running & set(plan.cancel)


@tries(100)
@given(run_states())
def test_jobs_that_can_never_start_are_cancelled(state: SubmissionState) -> None:
    plan = plan_submission(state, PARALLEL)
    assert {task.task.name for task in state.live if task.task.never_starts} <= set(plan.cancel)


@tries(100)
@given(run_states())
def test_a_new_prepare_cancels_what_waited_for_the_old_one(state: SubmissionState) -> None:
    plan = plan_submission(state, PARALLEL)
    assert (submitted(plan, "prepare") is not None) == (not state.planned and not state.live_of("prepare"))
    if submitted(plan, "prepare"):
        waiting = {task.task.name for task in state.live if task.stage in ("embed", "merge")}
        waiting |= {task.task.name for task in state.live_of("analyze") if task.task.state == "PENDING"}
        assert waiting <= set(plan.cancel)
        embed = submitted(plan, "embed")
        assert embed is None or "prepare" in embed.after_ok


@tries(100)
@given(run_states())
def test_an_embed_waits_for_its_prepare_and_preflight(state: SubmissionState) -> None:
    embed = submitted(plan_submission(state, PARALLEL), "embed")
    if embed is None:
        return
    preparing = {task.task.job for task in state.live_of("prepare")} or {"prepare"}
    trying = {task.task.job for task in state.live_of("preflight")} or {"preflight"}
    assert set(embed.after_ok) == (set() if state.planned else preparing) | (
        trying if state.preflight_wanted else set()
    )


@tries(100)
@given(run_states(), PER_JOB)
def test_if_all_goes_well_the_run_is_merged(state: SubmissionState, per_job: int) -> None:
    """After one plan; except for repeat_failures, which wait until a person looks at them."""
    slurm = Slurm(replace(state, repeat_failures={}))
    slurm.carry_out(plan_submission(slurm.state, PARALLEL, per_job=per_job))
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


def test_a_merge_that_started_too_early_does_not_count() -> None:
    """The newest merge was cancelled by hand; the one before it runs, and waited for other arrays."""
    state = SubmissionState(
        *(2, True, False, False, {1: "lost"}),
        live=(live("embed", "20", 1), live("merge", "9")),
        merge_dependencies=frozenset(("20", "9")),
    )
    assert plan_submission(state, PARALLEL).submit == (ChainJob("merge", after_any=("20", "9")),)


def test_second_copies_are_cancelled_where_they_have_not_started() -> None:
    """And do not count: the shard that only a waiting copy has is submitted."""
    embeds = [live("embed", "6", 0), live("embed", "5", 0), live("embed", "5", 1, "PENDING")]
    merges = [live("merge", job, None, "PENDING") for job in ("7", "8")]
    copies = {"5": "6", "7": "8"}
    state = SubmissionState(2, True, False, False, {0: "", 1: ""}, live=(*embeds, *merges), copies=copies)
    plan = plan_submission(state, PARALLEL)
    assert plan.copies == ("5_1", "7")  # task 5_0 has started
    assert plan.cancel == ("8",)
    assert plan.submit == (
        ChainJob("embed", indices=(1,), parallel=PARALLEL),
        ChainJob("merge", after_any=("embed", "5", "6")),
    )
    assert plan_submission(replace(state, copies={}), PARALLEL).copies == ()


# Which tasks belong to a run


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
    assert record.live(queue) == [LiveTask(queue[0], "embed", (0,), ("4",), at_once=2)]
    assert record.last("embed") is None
    assert asked.indices == (0, 1, 2)
    assert asked.dependency_ids == ("4",)


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


@given(st.sets(st.integers(0, 2000), min_size=1), st.integers(1, 4), st.integers(1, 4), st.integers(1, 16))
def test_groups_in_turn_keep_to_the_shards_at_once(shards: set[int], workers: int, in_turn: int, parallel: int) -> None:
    """gpus_per_job and shards_per_task together: the record of the call gives back the groups of the job."""
    resources = Resources(gpus=workers, gpus_per_job=workers, shards_per_task=in_turn)
    indices = tuple(sorted(shards))
    job = ChainJob("embed", indices=indices, parallel=parallel, per_job=resources.per_job, in_turn=in_turn)
    assert [shard for group in job.groups for shard in group] == list(indices)
    assert job.tasks == -(-len(indices) // (workers * in_turn))
    assert job.workers == workers
    if resources.per_job > 1:
        line = new_submission("embed", job.array, "", "submit", "/p", resources, array_spec(indices))
        assert tuple(line.groups.values()) == job.groups
        assert line.workers == workers
        assert line.shards_at_once == max(parallel // workers, 1) * workers


def test_a_line_names_shards_in_turn_only_if_there_are_some() -> None:
    """Versions that do not know the field read the others."""
    for in_turn, is_named in ((1, False), (3, True)):
        line = new_submission("embed", "0", "", "submit", "/p", Resources(shards_per_task=in_turn), "0-2")
        assert (b"in_turn" in encode_line(line)) == is_named
        assert decode_line(encode_line(line), Submission, Path("x")) == line


def test_rerun_accepts_mixed_engines_as_the_last_submission_did(run: RunFolder) -> None:
    assert not default_allow_mixed(run)
    for allow_mixed in (True, False):
        line = new_submission("merge", "", "", "submit", "/p.toml", Resources(), allow_mixed=allow_mixed)
        Submissions(run).add(replace_fields(line, what="submitted", job="1"))
        Submissions(run).add(replace_fields(line, allow_mixed=not allow_mixed))  # sbatch refused it
        assert default_allow_mixed(run) == allow_mixed
    older = encode_line(line).replace(b'"allow_mixed":false,', b"").replace(b',"allow_mixed":false', b"")
    body = older[:1] + older[1 + len(b'"seal":"",') + 64 :]
    assert b"allow_mixed" not in body
    run.submissions.write_bytes(sealed(body, b'"seal":"%s",'))
    assert Submissions(run).read() == [line]


def test_scripts_of_the_stages_that_compare_engines_accept_them(run: RunFolder) -> None:
    jobs = [replace(job, allow_mixed=True) for job in whole_chain(3, 2, preflight=True, analyze=True)]
    scripts = {job.stage: make_script(run, load_profile("test"), job) for job in jobs}
    accepting = {stage for stage, script in scripts.items() if f"{stage} {run.path} --allow-mixed" in script}
    assert accepting == {"preflight", "embed", "merge"}
    refusing = [make_script(run, load_profile("test"), replace(job, allow_mixed=False)) for job in jobs]
    assert not any("--allow-mixed" in script for script in refusing)


def test_allowed_shards_of_different_engines_are_not_made_again(
    damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.records.live.queue", list)
    path = damaged_run.shard_manifest(2)
    manifest = read(path, ShardManifest)
    write(path, replace_fields(manifest, engine=replace_fields(manifest.engine, gpu="other")))
    assert "--allow-mixed" in embedkit("merge", damaged_run.path, code=1).stderr
    config = read(damaged_run.config, RunConfig)
    assert set(read_state(damaged_run, config, 3).problems) == {2}
    assert read_state(damaged_run, config, 3, allow_mixed=True).problems == {}


def test_lines_that_a_kill_cut_short_are_left_out_and_do_no_harm(run: RunFolder) -> None:
    record = Submissions(run)
    first, second = (new_submission("merge", "", "", why, "/p.toml", Resources()) for why in ("submit", "rerun"))
    record.add(first)
    with run.submissions.open("ab") as file:
        file.write(b'{"seal": "0123')
    assert record.read() == [first]
    record.add(second)
    assert record.read() == [first, second]


# How starts ended


@dataclass
class Shard:
    """The starts of a shard, as its jobs would record them."""

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


def test_a_repeat_failure_is_the_same_failure_three_times(shard: Shard) -> None:
    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS - 1):
        shard.failed("RuntimeError: bad at 0x7f12\nmore")
        assert shard.attempts.repeat_failure() is None
    shard.failed("RuntimeError: bad at 0xdead\nother lines")
    assert shard.attempts.repeat_failure() == "RuntimeError: bad at 0x"


def test_starts_without_an_exit_record_count_as_the_same_failure(shard: Shard) -> None:
    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS):
        assert shard.attempts.repeat_failure() is None
        shard.died()
    assert shard.attempts.repeat_failure() == NO_EXIT_RECORD


def test_attempts_that_slurm_started_again_are_no_failure(run: RunFolder, shard: Shard) -> None:
    """Three node losses: each time the job's next start follows, without an exit record in between."""
    for restart in range(5):
        shard.monkeypatch.setattr("embedkit.job._current", JobContext(name="7_17", id="7", restart=restart))
        shard.attempts.add("started", 0, "")
        assert shard.attempts.repeat_failure() is None
    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS - 1):
        assert shard.attempts.repeat_failure() is None
        shard.died()  # new jobs, and nobody knows why
    assert shard.attempts.repeat_failure() == NO_EXIT_RECORD


def test_the_accounting_separates_lost_from_failed_attempts(shard: Shard) -> None:
    states: dict[str, str] = {}
    for state in ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL"):
        shard.died()
        states[shard.attempts.attempts()[-1].job] = state
    assert shard.attempts.repeat_failure() == NO_EXIT_RECORD
    assert shard.attempts.repeat_failure(lambda: states) is None
    killed = dict.fromkeys(states, "OUT_OF_MEMORY")
    assert shard.attempts.repeat_failure(lambda: killed) == NO_EXIT_RECORD


@pytest.mark.parametrize("code", [GpuHeld.code, GpuDiffers.code])
def test_faults_of_a_node_are_no_repeat_failure(code: str, shard: Shard) -> None:
    for _ in range(MAX_ATTEMPTS_WITHOUT_PROGRESS):
        shard.start(0)
        shard.attempts.add("failed", 0, "GPU 2 of node g7 has 1 of 80 GiB free", code)
    assert shard.attempts.repeat_failure() is None


def test_giving_up_three_times_is_a_repeat_failure(shard: Shard) -> None:
    """The seconds in the reason differ each time."""
    for seconds in range(MAX_ATTEMPTS_WITHOUT_PROGRESS):
        shard.start(0)
        shard.attempts.add("failed", 0, f"stopped 3 times with nothing new done: start {seconds} s", NO_PROGRESS)
    assert shard.attempts.repeat_failure() == "stopped 3 times with nothing new done: start 2 s"


def test_a_different_failure_or_progress_starts_the_count_again(shard: Shard) -> None:
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


def test_stops_and_cancellations_neither_count_nor_reset(shard: Shard) -> None:
    shard.stopped()
    shard.cancelled()
    shard.failed("one")
    shard.stopped()
    shard.failed("one")
    shard.cancelled()
    assert shard.attempts.repeat_failure() is None
    shard.failed("one")
    assert shard.attempts.repeat_failure() == "one"


def test_stops_count_as_long_as_there_is_no_progress(shard: Shard) -> None:
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


def test_requeued_starts_are_told_apart_without_damaged_lines(run: RunFolder, shard: Shard) -> None:
    for restart in range(3):
        shard.monkeypatch.setattr("embedkit.job._current", JobContext(name="7", id="7", restart=restart))
        shard.attempts.add("started", 0, "")
        shard.attempts.add("stopped", 0, "SIGTERM")
    path = run.logs / "embed-00017.attempts.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["restart"] for line in lines] == [0, 0, 1, 1, 2, 2]
    path.write_bytes(b"".join([*lines[:3], lines[3][:-9] + b"\n", *lines[4:]]) + b'{"cut')
    assert [attempt.outcome for attempt in shard.attempts.attempts()] == ["stopped", "failed", "stopped"]


def test_a_task_that_only_the_second_look_shows_is_not_lost(
    prepared_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the queue: for some seconds a task that is being requeued is not in it."""
    asked = new_submission("embed", "0-2", "", "submit", "test", Resources())
    Submissions(prepared_run).add(asked)
    looks: list[list[Task]] = [
        [],
        [Task("7", shard, "PENDING", "BeginTime", "", COMMENT_PREFIX + asked.tag) for shard in range(3)],
    ]
    monkeypatch.setattr("jobs.records.live.queue", lambda: looks.pop(0))
    monkeypatch.setattr("jobs.records.live.all_jobs", list)
    monkeypatch.setattr("jobs.submit.state.SECOND_LOOK_SECONDS", 0.0)
    state = read_state(prepared_run, read(prepared_run.config, RunConfig), 3)
    assert [job.stage for job in plan_submission(state, 4).submit] == ["merge"]


def test_shards_of_a_queued_group_need_no_second_look(prepared_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """squeue shows a task by its first shard. The group's other shards are not missing."""
    asked = new_submission("embed", "0,2", "", "submit", "test", Resources(gpus_per_job=2), shards="0-2")
    Submissions(prepared_run).add(asked)
    looks = [[Task("7", shard, "PENDING", "Priority", "", COMMENT_PREFIX + asked.tag) for shard in (0, 2)]]
    monkeypatch.setattr("jobs.records.live.queue", lambda: looks.pop(0))
    assert read_state(prepared_run, read(prepared_run.config, RunConfig), 3).embedding == {0, 1, 2}


@pytest.mark.parametrize(("array", "tasks"), [("0-9%4", 4), ("0-9", None), ("", None)])
def test_an_arrays_limit_on_tasks_at_once(array: str, tasks: int | None) -> None:
    assert new_submission("embed", array, "", "submit", "test", Resources()).tasks_at_once == tasks
