"""embed without an array: single jobs in lanes, their record, their scripts and what counts against a site's limits."""

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.profiles.load import load_profile
from jobs.profiles.schema import Profile, Resources
from jobs.records.submission import Submission, new_submission
from jobs.records.submissions import LiveTask, Submissions
from jobs.slurm.client import Task, job_list
from jobs.submit.accepted_shards import shard_limits
from jobs.submit.chain import ChainJob, whole_chain
from jobs.submit.lanes import lanes_of, one_by_one
from jobs.submit.plan import plan_submission
from jobs.submit.sbatch import submit
from jobs.submit.state import SubmissionState
from tests.jobs.submit.test_check_limits import SITE


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "demo")
    run.logs.mkdir(parents=True)
    return run


def without_arrays(per_job: int = 1) -> Profile:
    profile = load_profile("test")
    embed = replace(profile.stages["embed"], array=False, gpus_per_job=per_job)
    return replace(profile, stages={**profile.stages, "embed": embed})


def stand_ins(folder: Path, monkeypatch: pytest.MonkeyPatch, refuse: str = "false") -> Path:
    """Put stand-ins for Slurm's commands first in PATH; returns the file that lists what scancel gets.

    The ids of jobs begin at 101. `N` is the number of a call; sbatch fails where the shell's condition `refuse` holds.
    """
    bin_folder, calls = folder / "bin", folder / "calls"
    bin_folder.mkdir()
    texts = {
        "sbatch": f"echo >> {calls}; N=$(wc -l < {calls})\n"
        f'if {refuse}; then echo "sbatch: error: not accepted: $(grep -o -m 1 -e --array $2)" >&2; exit 1; fi\n'
        "echo $((100 + N))",
        "scancel": f'echo "$@" >> {folder}/cancelled',
        "squeue": "exit 0",
        "scontrol": 'echo "No jobs in the system"',
    }
    for name, text in texts.items():
        (bin_folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin_folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    return folder / "cancelled"


# Lanes


def waits(job: ChainJob, first_id: int) -> dict[str, set[str]]:
    """What each job waits for once it is submitted, by its id."""
    ids: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for number, one in enumerate(one_by_one([job]), first_id):
        found[str(number)] = set(one.with_job_ids(ids).after_any)
        ids[one.name] = str(number)
    return found


def on_cluster(waiting: dict[str, set[str]]) -> list[LiveTask]:
    return [
        LiveTask(Task(job, None, "PENDING", "", "", ""), "embed", (number,), tuple(sorted(after)))
        for number, (job, after) in enumerate(waiting.items())
    ]


@given(
    at_once=st.integers(1, 4),
    per_job=st.integers(1, 2),
    sizes=st.tuples(st.integers(0, 7), st.integers(1, 9)),
    steps=st.lists(st.tuples(st.sampled_from(["end", "cancel", "requeue"]), st.integers(0, 99)), max_size=30),
)
def test_no_more_jobs_run_at_once_than_there_are_lanes(
    at_once: int, per_job: int, sizes: tuple[int, int], steps: list[tuple[str, int]]
) -> None:
    """A rerun queues behind jobs that are there, and waiting jobs are cancelled in any order."""
    embed = ChainJob("embed", parallel=at_once * per_job, per_job=per_job, as_array=False)
    first = waits(replace(embed, indices=tuple(range(sizes[0] * per_job))), 100) if sizes[0] else {}
    shards = tuple(range(900, 900 + sizes[1] * per_job))
    second = waits(replace(embed, indices=shards, lanes=lanes_of(on_cluster(first))), 200)
    waiting, running = first | second, set[str]()
    assert len(second) == sizes[1]
    for act, number in [*steps, *[("end", 0)] * 16]:
        ready = {job for job, after in waiting.items() if not after & (waiting.keys() | running)}
        running |= ready
        waiting = {job: after for job, after in waiting.items() if job not in ready}
        assert len(running) <= at_once
        among = sorted(running if act != "cancel" else waiting)
        if among and act == "end":
            running.remove(among[number % len(among)])
        elif among and act == "cancel":
            del waiting[among[number % len(among)]]
        elif among:  # it waits for nothing any more
            waiting[among[number % len(among)]] = set()
            running.remove(among[number % len(among)])
    assert not waiting
    assert not running


def array_on_cluster(job: str, tasks: int, at_once: int) -> list[LiveTask]:
    indices = range(tasks)
    return [LiveTask(Task(job, n, "PENDING", "", "", ""), "embed", (n,), at_once=at_once) for n in indices]


@given(
    at_once=st.integers(1, 4),
    array_at_once=st.integers(1, 6),
    tasks=st.integers(1, 7),
    ended=st.integers(0, 7),
    sizes=st.tuples(st.integers(0, 5), st.integers(1, 7)),
)
def test_single_jobs_leave_room_for_an_array(
    at_once: int, array_at_once: int, tasks: int, ended: int, sizes: tuple[int, int]
) -> None:
    """Two reruns without an array, while an array of the run is on the cluster; tasks of it end in between."""
    job = ChainJob("embed", parallel=at_once, as_array=False)
    lanes = lanes_of(array_on_cluster("50", tasks, array_at_once))
    shards = tuple(range(100, 100 + sizes[0]))
    first = waits(replace(job, indices=shards, lanes=lanes), 100) if shards else {}
    left = tasks - ended
    there = on_cluster(first)
    if left > 0:
        there += array_on_cluster("50", left, array_at_once)
    second = waits(replace(job, indices=tuple(range(200, 200 + sizes[1])), lanes=lanes_of(there)), 200)
    assert len(second) == sizes[1]

    # The array is there: its tasks and the jobs that do not wait for it run at once.
    if left > 0:
        free = [one for one, after in (first | second).items() if not after]
        assert min(left, array_at_once) + len(free) <= max(at_once, min(left, array_at_once))
    # After it, as in every rerun.
    waiting = {one: after - {"50"} for one, after in (first | second).items()}
    while waiting:
        running = {one for one, after in waiting.items() if not after & waiting.keys()}
        assert 0 < len(running) <= at_once
        waiting = {one: after for one, after in waiting.items() if one not in running}


def test_a_rerun_without_an_array_waits_for_the_array(run: RunFolder) -> None:
    """Task 0 of `0-3%1` was cancelled, and the others are there; squeue may show them as one task."""
    line = new_submission("embed", "0-3%1", "afterok:3", "submit", "/p.toml", Resources())
    Submissions(run).add(msgspec.structs.replace(line, what="submitted", job="7"))
    tasks = [Task("7", index, "PENDING", "JobArrayTaskLimit", "", "") for index in (1, 2, 3)]
    live = tuple(Submissions(run).live(tasks))
    state = SubmissionState(
        4, planned=True, merged=False, preflight_wanted=False, problems=dict.fromkeys(range(4), "x"), live=live
    )
    one = plan_submission(state, 1, as_array=False).submit[0]
    assert [(job.indices, job.after_any) for job in one_by_one([one])] == [((0,), ("7",))]
    two = plan_submission(state, 2, as_array=False).submit[0]
    assert [job.after_any for job in one_by_one([two])] == [()]  # the array fills one lane of two

    wide = msgspec.structs.replace(line, what="submitted", job="8", array="0-3%2")
    Submissions(run).add(wide)
    assert lanes_of(Submissions(run).live([Task("8", None, "PENDING", "", "", "")])) == (("8",), ("8",))
    whole = msgspec.structs.replace(line, what="submitted", job="9", array="0-3")
    Submissions(run).add(whole)
    assert lanes_of(Submissions(run).live([Task("9", n, "RUNNING", "", "", "") for n in (2, 3)])) == (("9",), ("9",))


def test_with_as_many_at_once_as_jobs_none_waits_for_another() -> None:
    job = ChainJob("embed", after_ok=("prepare",), indices=tuple(range(40)), parallel=40, as_array=False)
    assert {one.dependency for one in one_by_one([job])} == {"afterok:prepare"}
    assert {one.dependency for one in one_by_one([replace(job, parallel=None)])} == {"afterok:prepare"}


def test_a_rerun_plans_jobs_behind_those_on_the_cluster() -> None:
    live = tuple(on_cluster({"11": {"9"}, "12": {"9"}, "13": {"9", "11"}}))
    problems = dict.fromkeys(range(6), "missing")
    state = SubmissionState(6, planned=True, merged=False, preflight_wanted=False, problems=problems, live=live)
    embed, merge = plan_submission(state, 2, as_array=False).submit
    assert (embed.indices, embed.lanes) == ((3, 4, 5), (("12",), ("11", "13")))
    assert [one.after_any for one in one_by_one([embed])] == [("12",), ("11", "13"), ("12", "embed-00003")]
    assert merge.after_any == ("embed", "11", "12", "13")


# Submitting


@pytest.mark.parametrize("per_job", [1, 2])
def test_each_job_is_recorded_with_its_shards(
    per_job: int, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins(tmp_path, monkeypatch)
    chain = whole_chain(6, 2 * per_job, preflight=True, per_job=per_job, as_array=False)
    lines = submit(run, without_arrays(per_job), chain, "submit")
    embeds = [line for line in lines if line.stage == "embed"]
    jobs = [line.job for line in embeds]
    assert [line.job for line in lines] == [str(101 + number) for number in range(len(lines))]
    assert lines[-1].dependency == ":".join(["afterany", *map(str, jobs)])
    assert embeds[0].dependency == "afterok:101:102"
    assert embeds[2].dependency == "afterok:101:102,afterany:103"
    assert {(line.array, line.shards_at_once) for line in embeds} == {("", 2 * per_job)}
    assert [shard for line in embeds for shard in line.index_of] == list(range(6))
    assert {index for line in embeds for index in line.index_of.values()} == {None}
    assert Submissions(run).read()[1::2] == lines
    names = [f"embed-{shard:05d}" for shard in range(6)] if per_job == 1 else [f"embed-job-{n:05d}" for n in (0, 2, 4)]
    assert [line.job_name for line in embeds] == names == [line.log_of(None) for line in embeds]
    queue = [Task(str(line.job), None, "PENDING", "", "", "") for line in embeds]
    assert [one.shards for one in Submissions(run).live(queue)] == [line.shards_of(None) for line in embeds]
    for line in embeds:
        script = (run.logs / "slurm" / f"{line.job_name}-{line.tag}.sh").read_text()
        assert "--array" not in script
        assert f"#SBATCH --job-name=demo.{line.job_name}\n" in script
        assert f"/logs/{line.job_name}.log\n" in script
    last = "--shard 5" if per_job == 1 else "--shards 4-5 --per-job 2"
    assert script.rstrip().endswith(f"jobs.node.job embed {run.path} {last}")


def test_a_refused_job_of_many_says_how_many_shards_fit(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = stand_ins(tmp_path, monkeypatch, "[ $N -gt 40 ]")
    chain = whole_chain(100, 8, preflight=True, analyze=True, as_array=False)
    with pytest.raises(EmbedkitError) as refused:
        submit(run, without_arrays(), chain, "submit")
    said = str(refused.value)
    assert "embed-00038 was not submitted: sbatch: error: not accepted" in said
    assert "sbatch accepted 40 of 104 jobs before it" in said
    assert " 36 shards fit" in said  # beside prepare, preflight, merge and analyze
    assert said.endswith("jobs 101-140, submitted before it, are cancelled; nothing of this chain is left")
    jobs = [str(job) for job in range(101, 141)]
    assert cancelled.read_text().split() == jobs[::-1]  # those that wait for others before these
    assert [line.job for line in Submissions(run).read() if line.what == "cancelled"] == jobs


def test_a_site_that_refuses_arrays_is_named_the_key(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins(tmp_path, monkeypatch, "grep -q -e --array $2")
    with pytest.raises(EmbedkitError, match=r"array = false under \[embed\]"):
        submit(run, load_profile("test"), whole_chain(3, 2, preflight=False), "submit")


def test_lines_of_earlier_versions_are_as_they_were(run: RunFolder) -> None:
    def line(array: str, shards: str = "", per_job: int = 1, **more: object) -> Submission:
        fields = {"format": 2, "what": "submitted", "at": "", "tag": "", "stage": "embed", "job": "7", "why": "submit"}
        fields |= {"dependency": "", "profile": "", "time": 60, "mem": None, "array": array}
        return Submission(**(fields | {"shards": shards, "per_job": per_job} | more))  # type: ignore[arg-type]

    array, pairs = line("0-2%4"), line("0,2%2", "0-3", 2)
    assert (array.groups, array.shards_at_once, array.job_name) == ({0: (0,), 1: (1,), 2: (2,)}, 4, "embed")
    assert (pairs.groups, pairs.shards_at_once, pairs.job_name) == ({0: (0, 1), 2: (2, 3)}, 4, "embed")
    assert (array.log_of(1), pairs.log_of(2)) == ("embed-00001", "embed-job-00002")
    merge = line("", stage="merge")
    assert (merge.groups, merge.shards_at_once, merge.job_name, merge.log_of(None)) == ({}, None, "merge", "merge")


def test_array_limits_do_not_count_without_arrays() -> None:
    site = replace(SITE, settings=SITE.settings | {"SchedulerParameters": "max_array_tasks=5"})
    names = [limit.name for limit in shard_limits(Resources(), site, (), 3)]
    single = [limit.name for limit in shard_limits(Resources(array=False), site, (), 3)]
    assert names[:2] == ["the cluster's MaxArraySize", "the cluster's max_array_tasks"]
    assert single == names[2:]


def test_many_jobs_are_named_as_ranges() -> None:
    assert job_list(["101", "99"]) == "101, 99"
    assert job_list([*map(str, range(101, 141)), "7"]) == "7, 101-140"
