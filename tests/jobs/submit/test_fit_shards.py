"""The number of shards of a new run fits the site: what is chosen is never refused."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.documents import RunConfig, read
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.profiles.schema import Resources
from jobs.slurm.client import Task
from jobs.slurm.cluster import ASSOC_FIELDS, QOS_FIELDS, Site, parse_rows
from jobs.submit.accepted_shards import ShardLimit, accepted_shards, limits_problem, other_jobs
from jobs.submit.chain import whole_chain
from jobs.submit.check_limits import submit_problem
from jobs.submit.check_profile import check_stage
from jobs.submit.fit_shards import ShardChoice, fit_shards
from jobs.submit.site_limits import SiteLimits
from tests.jobs.submit.test_check_limits import profile


def site(most: dict[str, int | None]) -> Site:
    """A cluster with these limits; None: not set."""

    def row(fields: tuple[str, ...], **values: object) -> str:
        return "|".join("" if values.get(field) is None else str(values[field]) for field in fields)

    lab = row(ASSOC_FIELDS, Account="lab", GrpSubmit=most["GrpSubmit"])
    ada = row(ASSOC_FIELDS, Account="lab", User="ada", MaxSubmit=most["MaxSubmit"])
    normal = row(QOS_FIELDS, Name="normal", MaxSubmitPU=most["MaxSubmitPU"])
    of_cluster = {name: str(most[name]) for name in ("MaxArraySize", "MaxJobCount") if most[name] is not None}
    if most.get("max_array_tasks") is not None:
        of_cluster["SchedulerParameters"] = f"bf_interval=30,max_array_tasks={most['max_array_tasks']}"
    return Site(
        user="ada",
        settings={"AccountingStorageEnforce": "associations,limits", **of_cluster},
        associations=parse_rows(f"{lab}\n{ada}", ASSOC_FIELDS),
        qos=parse_rows(normal, QOS_FIELDS),
        default_account="lab",
    )


def queue_of(tasks: int, account: str = "lab", qos: str = "normal") -> list[Task]:
    return [Task(str(job), None, "PENDING", "", "", "", account, qos) for job in range(tasks)]


def choose(
    wanted: int, at_once: int, where: Site, queued: list[Task], per_job: int = 1, preflight: bool = True
) -> ShardChoice | None:
    embed, others = Resources(gpus_per_job=per_job), other_jobs(whole_chain(1, 1, preflight))
    now, idle = (accepted_shards(embed, where, tasks, others) for tasks in (queued, []))
    return fit_shards(wanted, at_once, now, idle)


LIMIT = st.none() | st.integers(0, 300)


@given(
    most=st.fixed_dictionaries(
        dict.fromkeys(
            ("MaxArraySize", "MaxJobCount", "max_array_tasks", "MaxSubmit", "GrpSubmit", "MaxSubmitPU"), LIMIT
        )
    ),
    queued=st.lists(st.tuples(st.integers(0, 150), st.sampled_from(["lab", "far"]), st.sampled_from(["normal", "x"]))),
    per_job=st.integers(1, 8),
    at_once=st.integers(1, 100),
    wanted=st.integers(1, 2000),
    preflight=st.booleans(),
)
def test_a_chosen_number_is_never_refused(
    most: dict[str, int | None],
    queued: list[tuple[int, str, str]],
    per_job: int,
    at_once: int,
    wanted: int,
    preflight: bool,
) -> None:
    where, tasks = site(most), [task for one in queued for task in queue_of(*one)]
    embed = Resources(gpus_per_job=per_job)
    choice = choose(wanted, at_once, where, tasks, per_job, preflight)
    chain = whole_chain(wanted if choice is None else choice.shards, at_once, preflight, per_job)
    problem = submit_problem(profile(embed), chain, where, tasks)
    if choice is None:  # then the default number is refused, with a reason
        assert problem is not None
        return
    assert problem is None
    assert 1 <= choice.shards <= wanted
    assert bool(choice.note) == (choice.shards < wanted)
    idle = accepted_shards(embed, where, [], other_jobs(chain)).shards
    assert choice.shards >= min(at_once, wanted, idle)  # queued jobs leave no GPU idle


@given(
    most=st.fixed_dictionaries(
        dict.fromkeys(("MaxArraySize", "MaxJobCount", "MaxSubmit", "GrpSubmit", "MaxSubmitPU"), LIMIT)
    ),
    per_job=st.integers(1, 8),
    queued=st.integers(0, 300),
)
def test_the_number_that_a_refusal_names_fits(most: dict[str, int | None], per_job: int, queued: int) -> None:
    where, embed, tasks = site(most), Resources(gpus_per_job=per_job), queue_of(queued)
    jobs = whole_chain(5000, 1, preflight=True, per_job=per_job)
    problem = limits_problem(embed, jobs, where, tasks)
    assert problem is not None
    fits = int(problem.split("at most ")[1].split()[0])
    assert fits == accepted_shards(embed, where, tasks, other_jobs(jobs)).shards
    if fits:
        fitting = whole_chain(fits, 1, preflight=True, per_job=per_job)
        assert limits_problem(embed, fitting, where, tasks) is None


NO_LIMIT = dict.fromkeys(("MaxArraySize", "MaxJobCount", "MaxSubmit", "GrpSubmit", "MaxSubmitPU"))


@pytest.mark.parametrize(
    ("wanted", "at_once", "queued", "shards", "note"),
    [
        (36, 4, 0, 36, ""),
        (
            64,
            8,
            0,
            32,
            "64 shards would be the default; 37 fit MaxSubmit of account lab, user ada (40), and 32 is a multiple of "
            "the 8 at once",
        ),
        (
            64,
            8,
            20,
            16,
            "64 shards would be the default; 17 fit MaxSubmit of account lab, user ada (40, and 20 of your jobs are "
            "queued or running), and 16 is a multiple of the 8 at once",
        ),
        (64, 64, 0, 37, "64 shards would be the default; 37 fit MaxSubmit of account lab, user ada (40)"),
        (64, 8, 30, None, ""),  # 7 would fit
        (64, 64, 1, None, ""),  # 36 would fit, and 37 without the queued job
        (3, 8, 34, 3, ""),
        (64, 8, 40, None, ""),
    ],
)
def test_queued_jobs_never_leave_gpus_idle(
    wanted: int, at_once: int, queued: int, shards: int | None, note: str
) -> None:
    choice = choose(wanted, at_once, site(NO_LIMIT | {"MaxSubmit": 40}), queue_of(queued))
    assert (choice and choice.shards) == shards
    assert choice is None or choice.note == note


def test_whole_nodes_take_as_many_shards_as_workers() -> None:
    choice = choose(500, 8, site(NO_LIMIT | {"MaxSubmit": 10}), [], per_job=8)
    assert choice is not None
    assert choice.shards == 7 * 8


def test_the_last_shard_is_below_the_longest_array() -> None:
    choice = choose(5000, 8, site(NO_LIMIT | {"MaxArraySize": 1001}), [])
    assert choice is not None
    assert choice.note == (
        "5,000 shards would be the default; 1,001 fit the cluster's MaxArraySize (1,001), and 1,000 is a multiple of "
        "the 8 at once"
    )


def test_profile_check_names_the_tightest_limit() -> None:
    where = site(NO_LIMIT | {"MaxSubmit": 40, "MaxSubmitPU": 30})
    (found,) = [one for one in check_stage("embed", Resources(), where, {}) if one.what == "shards"]
    limit = accepted_shards(Resources(), where, [], 3)
    assert limit == ShardLimit(name="MaxSubmitPU of QOS normal", most=30, shards=27, tasks=27)
    assert found.actual == "at most 27, with nothing else queued (MaxSubmitPU of QOS normal is 30)"


def test_a_merge_alone_may_be_too_much() -> None:
    problem = limits_problem(Resources(), whole_chain(1, 1, False)[-1:], site(NO_LIMIT | {"MaxSubmit": 1}), queue_of(1))
    assert problem is not None
    assert problem.startswith("1 jobs would be submitted (0 shards and 1 more), but MaxSubmit of account lab")


@pytest.mark.parametrize(
    ("most", "queued", "next_step"),
    [
        (20, queue_of(12), "12 of yours are queued or running: at most 6 shards fit; wait until some of your jobs"),
        (2, queue_of(1), "at most 0 shards fit; use a different account or QOS"),
        (2, queue_of(9, "far"), "0 of yours are queued or running: at most 0 shards fit; use a different account"),
    ],
)
def test_where_no_number_fits_the_refusal_names_the_next_step(
    most: int, queued: list[Task], next_step: str, hash_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has two other jobs."""
    monkeypatch.setattr("jobs.submit.site_limits.read_site_limits", lambda: site(NO_LIMIT | {"MaxSubmit": most}))
    monkeypatch.setattr("jobs.submit.site_limits.queue", lambda: queued)
    monkeypatch.setattr("jobs.submit.site_limits.require_slurm", lambda: None)
    config = msgspec.structs.replace(read(hash_run.config, RunConfig), num_gpus=8)
    limits = SiteLimits(profile=profile(Resources()), preflight=None, analyze=None)
    with pytest.raises(UsageError, match=re.escape(next_step)):
        limits.choose_shards(config, 64)
    planned = SiteLimits(profile=profile(Resources()), preflight=None, analyze=None, dry_run=True)
    assert planned.choose_shards(config, 64).shards == (16 if most == 20 else 64)
