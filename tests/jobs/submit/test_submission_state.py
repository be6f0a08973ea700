"""The state of a run as submit and rerun read it, with stand-ins for Slurm's answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from embedkit.documents import (
    FORMAT,
    Preflight,
    Rejected,
    RejectedShard,
    RunConfig,
    ShardManifest,
    Success,
    digest,
    read,
    write,
)
from embedkit.embed import DIFFERENT_ENGINE
from embedkit.errors import EmbedkitError, UsageError
from embedkit.job import JobContext
from embedkit.run import RunFolder
from jobs.profiles import Resources, Stage
from jobs.records import Attempts, LiveTask, LiveTasks, Submission, Submissions, new_submission
from jobs.slurm import JobRecord, Task
from jobs.submit import state as state_module
from jobs.submit.state import (
    SubmissionState,
    default_allow_mixed,
    default_analyze,
    default_preflight,
    known_live,
    read_state,
    refuse_if_active,
    refuse_if_elsewhere,
)
from tests.support.reseal import reseal, shard_path


def record(
    run: RunFolder, stage: Stage, job: str | None = None, what: str = "submitted", **changes: object
) -> Submission:
    """Record a submission: `after` is --dependency, `array` --array."""
    line = new_submission(stage, "", "", "submit", "/p.toml", Resources())
    line = msgspec.structs.replace(line, what=what, job=job, **changes)
    Submissions(run).add(line)
    return line


def live(stage: Stage, job: str, *shards: int, state: str = "RUNNING", reason: str = "None") -> LiveTask:
    return LiveTask(Task(job, shards[0] if shards else None, state, reason, "", ""), stage, shards)


Answers = Callable[..., list[int]]


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Set what each look at Slurm finds, and what the accounting knows. Returns the seconds before each second look."""
    waits: list[int] = []

    def answer(*looks: LiveTasks, records: list[JobRecord] | None = None) -> list[int]:
        left = list(looks or [LiveTasks()])
        monkeypatch.setattr(state_module, "known_live", lambda run: left.pop(0) if len(left) > 1 else left[0])
        monkeypatch.setattr(state_module, "history", lambda jobs: records)
        monkeypatch.setattr(state_module.time, "sleep", lambda seconds: waits.append(int(seconds)))
        return waits

    return answer


def state_of(run: RunFolder, shards: int = 3, **options: bool | None) -> SubmissionState:
    return read_state(run, read(run.config, RunConfig), shards, **options)  # type: ignore[arg-type]


# What the command line leaves open


def config_of(run: RunFolder, engine: str) -> RunConfig:
    config = read(run.config, RunConfig)
    return msgspec.structs.replace(config, request=msgspec.structs.replace(config.request, engine=engine))


@pytest.mark.parametrize("engine", ["hash", "vllm"])
def test_a_first_submission_tries_the_engine_if_it_has_one(engine: str, small_prepared: RunFolder) -> None:
    assert default_preflight(small_prepared, config_of(small_prepared, engine)) == (engine != "hash")


@pytest.mark.parametrize("engine", ["hash", "vllm"])
def test_a_later_submission_does_as_the_last_embed_did(engine: str, small_prepared: RunFolder) -> None:
    run, config = small_prepared, config_of(small_prepared, engine)
    record(run, "preflight", None, "asked")
    assert default_preflight(run, config) == (engine != "hash")  # sbatch refused it
    record(run, "preflight", "11")
    assert default_preflight(run, config)
    record(run, "embed", "12", dependency="afterok:10:11")
    assert default_preflight(run, config)
    record(run, "embed", "14", dependency="afterok:13")
    assert not default_preflight(run, config)
    record(run, "merge", "15", dependency="afterany:11")
    assert not default_preflight(run, config)


def test_an_analysis_follows_the_last_merge_as_it_did(small_prepared: RunFolder) -> None:
    run = small_prepared
    assert not default_analyze(run)
    for stage, wanted in (("embed", False), ("analyze", True), ("prepare", True), ("merge", False), ("analyze", True)):
        record(run, stage, "1")  # type: ignore[arg-type]
        assert default_analyze(run) == wanted


def test_mixed_engines_are_accepted_as_in_the_last_submission(small_prepared: RunFolder) -> None:
    run = small_prepared
    assert default_allow_mixed(run) is False
    record(run, "merge", None, "asked", allow_mixed=True)
    assert default_allow_mixed(run) is False
    record(run, "merge", "1", allow_mixed=True)
    record(run, "merge", "1", "cancelled")
    assert default_allow_mixed(run) is True
    record(run, "embed", "2")
    assert default_allow_mixed(run) is False


# The state at each stage


def test_before_prepare_all_shards_are_missing(small_prepared: RunFolder, slurm: Answers) -> None:
    run = small_prepared
    run.plan.unlink()
    slurm()
    assert state_of(run, shards=5) == SubmissionState(
        5, planned=False, merged=False, preflight_wanted=False, problems=dict.fromkeys(range(5), "not prepared")
    )


def test_the_plan_decides_the_number_of_shards(small_prepared: RunFolder, slurm: Answers) -> None:
    slurm()
    assert state_of(small_prepared, shards=0) == SubmissionState(
        3, planned=True, merged=False, preflight_wanted=False, problems=dict.fromkeys(range(3), "not finished")
    )


def test_a_merged_run_has_nothing_left(small: RunFolder, slurm: Answers) -> None:
    waits = slurm()
    record(small, "merge", "7", dependency="afterany:5:6")
    wanted = SubmissionState(
        3, planned=True, merged=True, preflight_wanted=False, problems={}, merge_dependencies=frozenset({"5", "6"})
    )
    assert state_of(small) == wanted
    assert waits == []


def without_a_file(run: RunFolder) -> None:
    shard_path(run, 1, "response").unlink()


def shorter_file(run: RunFolder) -> None:
    path = shard_path(run, 1)
    path.write_bytes(path.read_bytes()[:-1])


def other_plan(run: RunFolder) -> None:
    reseal(run.shard_manifest(1), ShardManifest, plan_sha256="0" * 64)


LOST: dict[str, tuple[Callable[[RunFolder], None], str]] = {
    "gone": (lambda run: run.shard_manifest(1).unlink(), "not finished"),
    "file gone": (without_a_file, "response.safetensors: missing"),
    "file shorter": (shorter_file, "bytes, its manifest says"),
    "other plan": (other_plan, "its manifest belongs to another plan"),
}


@pytest.mark.parametrize("name", LOST)
def test_a_shard_that_does_not_count_is_a_problem(name: str, small: RunFolder, slurm: Answers) -> None:
    """And what was merged from it is no merged run."""
    slurm()
    damage, what = LOST[name]
    damage(small)
    state = state_of(small)
    assert state.problems.keys() == {1}
    assert what in state.problems[1]
    assert not state.merged


@pytest.mark.parametrize("name", ["missing", "damaged", "of other shards"])
def test_a_merge_counts_if_it_is_of_these_shards(name: str, small: RunFolder, slurm: Answers) -> None:
    slurm()
    if name == "missing":
        small.success.unlink()
    elif name == "damaged":
        small.success.write_bytes(b"{}")
    else:
        reseal(small.success, Success, shard_manifests={})
    state = state_of(small)
    assert (state.problems, state.merged) == ({}, False)


@pytest.mark.parametrize("what", [DIFFERENT_ENGINE, "its canary is far away"])
def test_shards_that_merge_rejected_are_made_again(what: str, small_embedded: RunFolder, slurm: Answers) -> None:
    run = small_embedded
    slurm()
    sha256 = digest(read(run.shard_manifest(2), ShardManifest))
    rejected = RejectedShard(manifest_sha256=sha256, what=what, remake=True)
    write(run.rejected, Rejected(format=FORMAT, shards={"2": rejected}))
    assert state_of(run).problems == {2: f"merge rejected it: {what}"}
    assert state_of(run, allow_mixed=True).problems.keys() == (set() if what == DIFFERENT_ENGINE else {2})


# Preflight and analysis


def write_preflight(run: RunFolder, engine: object) -> None:
    sha256 = digest(read(run.config, RunConfig).request)
    report = Preflight(format=FORMAT, request_sha256=sha256, engine=engine, job="", host="", start_seconds=0.0)  # type: ignore[arg-type]
    write(run.preflight, report)


def test_a_preflight_is_wanted_until_something_has_run(small: RunFolder, slurm: Answers) -> None:
    run = small
    slurm()
    engine = read(run.shard_manifest(0), ShardManifest).engine
    record(run, "preflight", "1")
    assert not state_of(run).preflight_wanted
    for shard in range(3):
        run.shard_manifest(shard).unlink()
    assert state_of(run).preflight_wanted
    assert not state_of(run, preflight=False).preflight_wanted
    write_preflight(run, engine)
    assert not state_of(run).preflight_wanted
    assert state_of(run, preflight=True).preflight_wanted


def test_an_analysis_is_wanted_until_the_merge_is_analyzed(small: RunFolder, slurm: Answers) -> None:
    run = small
    slurm()
    assert not state_of(run).analyze_wanted
    assert state_of(run, analyze=True).analyze_wanted
    record(run, "analyze", "1")
    assert state_of(run).analyze_wanted
    assert not state_of(run, analyze=False).analyze_wanted
    run.analysis.mkdir()
    run.analysis_page.touch()
    assert not state_of(run).analyze_wanted
    assert not state_of(run, analyze=True).analyze_wanted
    run.shard_manifest(0).unlink()  # it will be merged again
    assert state_of(run).analyze_wanted


# Slurm


def test_tasks_that_embed_a_missing_shard_need_no_second_look(small_prepared: RunFolder, slurm: Answers) -> None:
    run = small_prepared
    tasks = (live("embed", "5", 0), live("embed", "6", 1, 2, state="PENDING", reason="Priority"))
    waits = slurm(LiveTasks(tasks))
    record(run, "embed", "5")
    state = state_of(run)
    assert state.live == tasks
    assert state.embedding == {0, 1, 2}
    assert waits == []


def test_a_missing_task_is_looked_for_twice(small_prepared: RunFolder, slurm: Answers) -> None:
    run = small_prepared
    never = live("embed", "5", 2, state="PENDING", reason="DependencyNeverSatisfied")
    waits = slurm(LiveTasks((live("embed", "5", 0, 1), never)), LiveTasks((live("embed", "5", 0, 1, 2),)))
    assert state_of(run).embedding == {0, 1}  # nothing was ever submitted: it cannot come back
    assert waits == []
    waits = slurm(LiveTasks((live("embed", "5", 0, 1), never)), LiveTasks((live("embed", "5", 0, 1, 2),)))
    record(run, "embed", "5")
    assert state_of(run).embedding == {0, 1, 2}
    assert waits == [6]


def test_live_tasks_are_those_that_can_start() -> None:
    never = live("embed", "6", 1, state="PENDING", reason="DependencyNeverSatisfied")
    tasks = (live("embed", "5", 0), never, live("merge", "7"))
    state = SubmissionState(2, True, False, False, {}, live=tasks)
    assert state.live_of("embed") == [tasks[0]]
    assert state.live_of("merge") == [tasks[2]]
    assert state.embedding == {0}


def test_notes_say_what_is_odd_about_the_answer(small: RunFolder, slurm: Answers) -> None:
    """Copies that have started are named; those that wait are cancelled without a word."""
    run = small
    started, waiting = live("embed", "5", 0), live("embed", "6", 1, state="PENDING", reason="Priority")
    slurm(LiveTasks((started, waiting), outdated=("4_1",), copies={"5": "3", "6": "3"}))
    state = state_of(run)
    assert (state.outdated, state.copies) == (("4_1",), {"5": "3", "6": "3"})
    assert state.notes[0] == "squeue still shows 4_1, which has ended: its answer is old"
    assert len(state.notes) == 2
    assert "5" in state.notes[1]
    assert "6" not in state.notes[1]
    slurm(LiveTasks((waiting,), copies={"6": "3"}))
    assert state_of(run).notes == ()


def failed(run: RunFolder, shard: int, times: int, monkeypatch: pytest.MonkeyPatch, why: str | None = "boom") -> None:
    """Record attempts that failed alike; without a reason they were killed."""
    for number in range(times):
        monkeypatch.setattr("embedkit.job._current", JobContext(name=f"{number}_{shard}", id=f"{number}"))
        attempts = Attempts(run, "embed", shard)
        attempts.add("started", 0, "")
        if why is not None:
            attempts.add("failed", 0, why)


def test_repeat_failures_are_those_of_missing_shards(
    small_embedded: RunFolder, slurm: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_embedded
    run.logs.mkdir(exist_ok=True)
    slurm()
    for shard, times in ((0, 3), (1, 3), (2, 2)):
        failed(run, shard, times, monkeypatch)
    run.shard_manifest(1).unlink()
    run.shard_manifest(2).unlink()
    state = state_of(run)
    assert state.problems.keys() == {1, 2}
    assert state.repeat_failures == {1: "boom"}


def test_the_accounting_says_what_ended_a_killed_attempt(
    small_embedded: RunFolder, slurm: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts that were lost with their nodes do not count; a record of one that still runs says nothing."""
    run = small_embedded
    run.logs.mkdir(exist_ok=True)
    failed(run, 1, 3, monkeypatch, None)
    run.shard_manifest(1).unlink()

    def records(state: str) -> list[JobRecord]:
        return [JobRecord(job=f"{number}", index=1, state=state) for number in range(3)]

    slurm(records=None)
    assert state_of(run).repeat_failures.keys() == {1}
    slurm(records=records("NODE_FAIL"))
    assert state_of(run).repeat_failures == {}
    slurm(records=records("FAILED"))
    assert state_of(run).repeat_failures.keys() == {1}
    slurm(records=records("RUNNING"))
    assert state_of(run).repeat_failures.keys() == {1}


# Refusals


class Reader:
    """A stand-in for the reader of live tasks."""

    answer = LiveTasks()

    def __init__(self, run: RunFolder) -> None: ...

    def read(self) -> LiveTasks:
        return self.answer


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> type[Reader]:
    monkeypatch.setattr(state_module, "LiveReader", Reader)
    monkeypatch.setattr(Reader, "answer", LiveTasks())
    return Reader


def test_jobs_that_may_run_stop_a_submission(small: RunFolder, reader: type[Reader]) -> None:
    assert known_live(small) == LiveTasks()
    reader.answer = LiveTasks(unanswered=("7",))
    with pytest.raises(EmbedkitError) as error:
        known_live(small)
    assert str(error.value) == (
        f"{small.path}: it is not known whether these jobs run: 7 (squeue does not show them; neither scontrol nor "
        "sacct says that they have ended). Nothing was submitted; try again when Slurm answers. If they may be ended: "
        f"embedkit cancel {small.path}"
    )


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in for the choice of a cluster: this machine belongs to `home`. Returns the clusters that were asked."""
    asked: list[str] = []

    @contextmanager
    def on(cluster: str, *_: str) -> Iterator[None]:
        asked.append(cluster)
        yield

    monkeypatch.setattr(state_module, "has_slurm", lambda: True)
    monkeypatch.setattr(state_module, "on_cluster", on)
    monkeypatch.setattr(state_module, "chosen_cluster", lambda: "")
    monkeypatch.setattr(state_module, "configuration", lambda: {"ClusterName": "home"})
    return asked


def test_active_jobs_refuse_what_would_disturb_them(
    small: RunFolder, reader: type[Reader], cluster: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small
    embeds = (live("embed", "12", 0), live("embed", "9", 1), live("embed", "12", 2), live("merge", "13"))
    reader.answer = LiveTasks(embeds)
    refuse_if_active(run)  # never submitted
    assert cluster == []
    record(run, "embed", "9", clusters="far")
    with pytest.raises(UsageError) as error:
        refuse_if_active(run)
    assert str(error.value) == (
        f"{run.path} is active on the cluster: jobs 9, 12 (embed), 13 (merge). Wait for it, watch it with "
        f"`embedkit status {run.path}`, or cancel these jobs first"
    )
    assert cluster == ["far"]
    reader.answer = LiveTasks()
    refuse_if_active(run)
    reader.answer = LiveTasks(embeds)
    monkeypatch.setattr(state_module, "has_slurm", lambda: False)
    refuse_if_active(run)


@pytest.mark.parametrize(
    ("recorded", "chosen", "there", "here"),
    [
        ("", "", None, None),
        ("far", "far", None, None),
        ("home", "", None, None),
        ("", "home", None, None),
        ("far", "", "far", "home"),
        ("", "far", "home", "far"),
        ("far", "other", "far", "other"),
    ],
)
def test_jobs_on_another_cluster_refuse_a_submission(
    recorded: str,
    chosen: str,
    there: str | None,
    here: str | None,
    small: RunFolder,
    reader: type[Reader],
    cluster: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = small
    monkeypatch.setattr(state_module, "chosen_cluster", lambda: chosen)
    reader.answer = LiveTasks((live("merge", "13"),))
    refuse_if_elsewhere(run)  # never submitted
    assert cluster == []
    record(run, "embed", "9", clusters="older")
    record(run, "embed", "10", clusters=recorded)
    if there is None:
        refuse_if_elsewhere(run)
        return
    with pytest.raises(UsageError) as error:
        refuse_if_elsewhere(run)
    assert str(error.value).startswith(
        f"the jobs of this run are on cluster {there}, and these would go to {here}. {run.path} is active"
    )
    assert cluster == ["", recorded]
    reader.answer = LiveTasks()
    refuse_if_elsewhere(run)
