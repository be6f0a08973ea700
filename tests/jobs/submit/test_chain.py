"""One job of a chain as sbatch gets it, and which jobs a plan cancels or submits in states written out by hand."""

from dataclasses import replace

import pytest

from jobs.profiles import Stage
from jobs.records import LiveTask
from jobs.slurm import Task
from jobs.submit.chain import ChainJob, as_one_chain, whole_chain
from jobs.submit.plan import SubmissionPlan, plan_submission
from jobs.submit.state import SubmissionState

EMBED = ChainJob("embed", indices=(3, 4, 5, 17, 42), parallel=4)

JOBS: list[tuple[ChainJob, int, str, int | None, str, str]] = [
    (EMBED, 5, "3-5,17,42%4", 4, "embed-%5a", "embed"),
    (replace(EMBED, parallel=None), 5, "3-5,17,42", None, "embed-%5a", "embed"),
    (replace(EMBED, per_job=2), 3, "3,5,42%2", 2, "embed-job-%5a", "embed"),
    (replace(EMBED, per_job=8), 1, "3%1", 1, "embed-job-%5a", "embed"),
    (replace(EMBED, indices=(17,), as_array=False), 1, "", 4, "embed-00017", "embed-00017"),
    (replace(EMBED, indices=(4, 5), per_job=2, as_array=False), 1, "", 2, "embed-job-00004", "embed-job-00004"),
    (ChainJob("merge"), 1, "", None, "merge", "merge"),
    (ChainJob("merge", as_array=False), 1, "", None, "merge", "merge"),
]


@pytest.mark.parametrize(("job", "tasks", "array", "at_once", "log", "name"), JOBS)
def test_a_job_has_its_array_log_and_name(
    job: ChainJob, tasks: int, array: str, at_once: int | None, log: str, name: str
) -> None:
    assert (job.tasks, job.array, job.tasks_at_once, job.log, job.name) == (tasks, array, at_once, log, name)


def test_dependencies_are_those_of_sbatch() -> None:
    job = ChainJob("merge", after_ok=("prepare", "7"), after_any=("embed",))
    assert job.dependency == "afterok:prepare:7,afterany:embed"
    assert job.with_job_ids({"embed": "8:9"}).dependency == "afterok:prepare:7,afterany:8:9"
    assert job.with_job_ids({"prepare": "6"}).dependency == "afterok:6:7,afterany:embed"
    assert ChainJob("merge", after_any=("1",)).dependency == "afterany:1"
    assert ChainJob("merge").dependency == ""


@pytest.mark.parametrize("allow_mixed", [True, False])
def test_the_last_job_of_a_chain_is_marked(allow_mixed: bool) -> None:
    jobs = as_one_chain(whole_chain(2, 1, preflight=False), allow_mixed)
    assert [job.is_last for job in jobs] == [False, False, True]
    assert {job.allow_mixed for job in jobs} == {allow_mixed}


def test_the_whole_chain_of_a_run() -> None:
    embed = ChainJob("embed", after_ok=("prepare", "preflight"), indices=(0, 1, 2), parallel=2, per_job=2)
    assert whole_chain(3, 2, preflight=True, per_job=2, analyze=True) == [
        ChainJob("prepare"),
        ChainJob("preflight"),
        embed,
        ChainJob("merge", after_any=("embed",)),
        ChainJob("analyze", after_ok=("merge",)),
    ]
    assert whole_chain(3, 2, preflight=False, as_array=False) == [
        ChainJob("prepare"),
        replace(embed, after_ok=("prepare",), per_job=1, as_array=False),
        ChainJob("merge", after_any=("embed",)),
    ]


# Plans


def live(stage: Stage, job: str, *shards: int, state: str = "PENDING", reason: str = "Dependency") -> LiveTask:
    return LiveTask(Task(job, shards[0] if shards else None, state, reason, "", ""), stage, shards)


def running(stage: Stage, job: str, *shards: int) -> LiveTask:
    return live(stage, job, *shards, state="RUNNING", reason="None")


def state(*tasks: LiveTask, missing: tuple[int, ...] = (), shards: int = 3, **fields: object) -> SubmissionState:
    """A planned run; by default not merged."""
    usual = {"planned": True, "merged": False, "preflight_wanted": False}
    problems = dict.fromkeys(missing, "not finished")
    return SubmissionState(shards=shards, problems=problems, live=tasks, **(usual | fields))  # type: ignore[arg-type]


def embed_job(*indices: int, after: tuple[str, ...] = ()) -> ChainJob:
    return ChainJob("embed", after_ok=after, indices=indices, parallel=2)


def merge_job(*after: str) -> ChainJob:
    return ChainJob("merge", after_any=after)


PLANS: dict[str, tuple[SubmissionState, SubmissionPlan]] = {
    "two shards are lost": (
        state(missing=(2, 0)),
        SubmissionPlan(submit=(embed_job(0, 2), merge_job("embed"))),
    ),
    "one is embedded already": (
        state(running("embed", "5", 0), missing=(0, 2)),
        SubmissionPlan(submit=(embed_job(2), merge_job("embed", "5"))),
    ),
    "a merge waits for what embeds": (
        state(running("embed", "5", 0), live("merge", "6"), missing=(0,), merge_dependencies=frozenset({"5", "4"})),
        SubmissionPlan(),
    ),
    "a merge waits for something else": (
        state(running("embed", "5", 0), live("merge", "6"), missing=(0,), merge_dependencies=frozenset({"4"})),
        SubmissionPlan(cancel=("6",), submit=(merge_job("5"),)),
    ),
    "a merge waits and a shard is lost": (
        state(running("embed", "5", 0), live("merge", "6"), missing=(0, 1), merge_dependencies=frozenset({"5"})),
        SubmissionPlan(cancel=("6",), submit=(embed_job(1), merge_job("embed", "5"))),
    ),
    "a merge has started too early": (
        state(running("embed", "5", 0), running("merge", "6"), missing=(0,), merge_dependencies=frozenset({"5"})),
        SubmissionPlan(submit=(merge_job("5", "6"),)),
    ),
    "a merge runs after all shards": (state(running("merge", "6")), SubmissionPlan()),
    "only the merge is missing": (state(), SubmissionPlan(submit=(merge_job(),))),
    "repeat failures wait for a person": (
        state(missing=(1,), repeat_failures={1: "boom"}),
        SubmissionPlan(),
    ),
    "repeat failures do not keep others": (
        state(missing=(0, 1), repeat_failures={1: "boom"}),
        SubmissionPlan(submit=(embed_job(0), merge_job("embed"))),
    ),
    "a job can never start": (
        state(live("embed", "5", 0, reason="DependencyNeverSatisfied"), missing=(0,)),
        SubmissionPlan(cancel=("5_0",), submit=(embed_job(0), merge_job("embed"))),
    ),
    "prepare runs": (
        state(running("prepare", "3"), missing=(0, 1, 2), planned=False),
        SubmissionPlan(submit=(embed_job(0, 1, 2, after=("3",)), merge_job("embed"))),
    ),
    "prepare failed": (
        state(live("embed", "5", 0, 1, 2), live("merge", "6"), live("analyze", "7"), missing=(0, 1, 2), planned=False),
        SubmissionPlan(
            cancel=("5_0", "6", "7"),
            submit=(ChainJob("prepare"), embed_job(0, 1, 2, after=("prepare",)), merge_job("embed")),
        ),
    ),
    "a preflight is wanted": (
        state(missing=(0,), preflight_wanted=True),
        SubmissionPlan(submit=(ChainJob("preflight"), embed_job(0, after=("preflight",)), merge_job("embed"))),
    ),
    "a preflight is queued": (
        state(live("preflight", "4", reason="Priority"), missing=(0,), preflight_wanted=True),
        SubmissionPlan(submit=(embed_job(0, after=("4",)), merge_job("embed"))),
    ),
    "no shard is missing and a preflight is wanted": (
        state(merged=True, preflight_wanted=True),
        SubmissionPlan(),
    ),
    "an analysis of a merged run": (
        state(merged=True, analyze_wanted=True),
        SubmissionPlan(submit=(ChainJob("analyze"),)),
    ),
    "an analysis after a merge that runs": (
        state(running("merge", "6"), analyze_wanted=True),
        SubmissionPlan(submit=(ChainJob("analyze", after_ok=("6",)),)),
    ),
    "an analysis is queued after a merge that runs": (
        state(running("merge", "6"), live("analyze", "7"), analyze_wanted=True),
        SubmissionPlan(),
    ),
    "an analysis is queued after a merge that is made again": (
        state(live("analyze", "7"), missing=(0,), analyze_wanted=True),
        SubmissionPlan(
            cancel=("7",), submit=(embed_job(0), merge_job("embed"), ChainJob("analyze", after_ok=("merge",)))
        ),
    ),
    "an analysis of the earlier merge runs": (
        state(running("analyze", "7"), missing=(0,)),
        SubmissionPlan(submit=(embed_job(0), merge_job("embed"))),
    ),
    "an analysis runs": (state(running("analyze", "7"), merged=True, analyze_wanted=True), SubmissionPlan()),
    "an analysis without a merge": (
        state(missing=(1,), repeat_failures={1: "boom"}, analyze_wanted=True),
        SubmissionPlan(),
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_of_a_state(name: str) -> None:
    at, plan = PLANS[name]
    assert plan_submission(at, parallel=2) == plan


def test_only_the_named_shards_are_submitted() -> None:
    """Also those that failed repeatedly; never those that are finished or embedded now."""
    at = state(running("embed", "5", 2), missing=(0, 1, 2), repeat_failures={1: "boom"})
    assert plan_submission(at, 2, only=(1, 2)).submit == (embed_job(1), merge_job("embed", "5"))
    assert plan_submission(state(missing=(0,)), 2, only=(1,)) == SubmissionPlan()


def test_shards_share_tasks_and_may_come_without_an_array() -> None:
    at = state(running("embed", "5", 0), missing=(0, 1, 2))
    (embed, _) = plan_submission(at, 2, per_job=2).submit
    assert embed == ChainJob("embed", indices=(1, 2), parallel=2, per_job=2)
    (embed, _) = plan_submission(at, 2, as_array=False).submit
    assert (embed.as_array, embed.indices, embed.lanes) == (False, (1, 2), (("5",),))
