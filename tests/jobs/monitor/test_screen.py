"""One screen: all sorts of trouble at once, on terminals of several sizes."""

import io
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from embedkit.run import RunFolder
from jobs.monitor.observations import RunObservations
from jobs.monitor.overview import make_overview
from jobs.monitor.schema import Overview
from jobs.monitor.screen import fold, print_overview
from jobs.records.attempts import Attempt
from jobs.records.submission import Submission
from jobs.records.submissions import LiveTask
from jobs.slurm.accounting import JobRecord
from jobs.slurm.client import Task
from tests.jobs.monitor.test_overview import LONG_AGO, NOW, RUN, event, shard, shown, status, submission

SIZES = [(80, 24), (80, 30), (100, 24), (120, 40), (200, 50)]
CAUSES = (
    "the engine failed on rows 968 to 288275 (ids 879 to 1005): RuntimeError: CUDA error: an illegal memory access was "
    "encountered\nfor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nthen type: embedkit rerun /runs/demo",
    "3 of 9 files are missing or damaged:\n  part-00001: not finished\n  part-00002: sha256 differs\nto repair: rerun",
    "gpu n3: 12 GB of its memory are held by process 4711 of user bob",
)
UNAVAILABLE = "ReqNodeNotAvail, UnavailableNodes:gpu[001-004]"
BUDGET = "AssocGrpBillingMinutes"


def queued(index: int, state: str, reason: str = "None", node: str = "", start: float | None = None) -> LiveTask:
    return LiveTask(Task("5", index, state, reason, node, "", start=start), "embed", (index,))


def ended(index: int, state: str, exit_code: str, node: str = "n3") -> JobRecord:
    return JobRecord(
        job="5", index=index, state=state, exit_code=exit_code, node=node, started=LONG_AGO, ended=LONG_AGO + 60
    )


def failed(index: int, why: str) -> list[Attempt]:
    job = f"5_{index}"
    return [Attempt(event("started", LONG_AGO, job=job), event("failed", NOW - 60, why, job=job))]


def in_all_states() -> RunObservations:
    """64 shards of one array, in every state at once."""
    shards = [shard(number, state="done", done=10) for number in range(10)]
    shards += [shard(number, changed=NOW - 10) for number in range(10, 30)]
    shards += [shard(number, done=0) for number in range(30, 64)]
    shards[12] = shard(12, seconds=900.0, changed=NOW - 5)
    shards[13] = shard(13, changed=NOW - 1500)
    attempts = {f"embed-{n:05d}": failed(n, CAUSES[n % 3]) for n in range(20, 29)}
    attempts |= {f"embed-{n:05d}": [Attempt(event("started", LONG_AGO, job=f"5_{n}"), None)] for n in (29, 30)}
    queue = [queued(n, "RUNNING", node="n1", start=LONG_AGO) for n in range(10, 16)]
    queue += [queued(n, "SUSPENDED", node="n2", start=LONG_AGO) for n in (16, 17)]
    queue += [queued(18, "COMPLETING", node="n4"), queued(19, "CONFIGURING", node="n5", start=LONG_AGO)]
    queue += [queued(n, "PENDING", "JobHeldUser") for n in range(34, 41)]
    queue += [queued(41, "SPECIAL_EXIT", "job requeued in held state")]
    queue += [queued(n, "PENDING", UNAVAILABLE) for n in range(42, 47)]
    queue += [queued(n, "PENDING", BUDGET) for n in range(47, 52)]
    queue += [queued(n, "PENDING", "Priority") for n in range(52, 58)]
    queue += [LiveTask(Task("6", None, "PENDING", "Dependency", "", ""), "merge")]
    records = [ended(n, "FAILED", "1:0") for n in range(20, 29)]
    records += [ended(29, "FAILED", "0:24"), ended(30, "NODE_FAIL", "0:1"), ended(31, "FAILED", "127:0", "n7")]
    records += [ended(32, "FAILED", "0:7", "n8"), ended(33, "PREEMPTED", "0:15")]
    return RunObservations(
        run=RUN,
        status=status(shards),
        now=NOW,
        submissions=[submission(array="0-57%16"), merge_of("5")],
        queue=queue,
        records=records,
        attempts=attempts,
        errors={"embed-00031": "/spool/n7/job5/slurm_script: line 21: /apps/ek/bin/python: No such file or directory"},
        logs=frozenset(f"embed-{n:05d}" for n in range(34)),
        notes=("the clock of n3 is 4 min ahead; its times are corrected", "node n9 was lost", "a", "b", "c", "d"),
    )


def merge_of(job: str) -> Submission:
    fields = {name: getattr(submission(), name) for name in Submission.__struct_fields__}
    return Submission(**(fields | {"stage": "merge", "job": "6", "array": "", "dependency": f"afterany:{job}"}))


@pytest.fixture(scope="module")
def overview() -> Overview:
    return make_overview(in_all_states())


def flat(text: str) -> str:
    """The text without the line breaks that the width of the terminal makes."""
    return " ".join(text.split())


def test_every_state_is_counted_once(overview: Overview) -> None:
    embed = next(stage for stage in overview.stages if stage.stage == "embed")
    assert embed.tasks == {
        **{"done": 10, "running": 6, "completing": 1, "suspended": 2, "configuring": 1, "pending": 16, "held": 8},
        **{"failed": 14, "unsubmitted": 6},
    }


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_64_shards_in_every_state_fit_the_screen(overview: Overview, width: int, height: int) -> None:
    """No line scrolls off, each shard has one line, and what to do is there in full."""
    text = shown(overview, height, width)
    lines = text.splitlines()
    assert len(lines) <= height - 1  # the prompt has one
    assert all(len(line) <= width for line in lines)
    for advice in (
        "scontrol release '5_[34-40]'",
        "scontrol release 5_41",
        "ask the account's owner (sshare), or name a different one",
        "the nodes must see the environment (path, `modules`, `before`)",
        "check df -h /dev/shm on n8; report the node if it repeats",
        "look for ulimit -t in `before`, or ask your site",
        "scontrol requeue 5_13",
        "embedkit logs /runs/demo --failed",
        "--run-name demo",
        "--profile PATH",
    ):
        assert advice in flat(text), advice
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("shard")) + 1 :]
    assert table[0].split()[:2][1] == "failed"


def test_a_wide_screen_has_all_columns_and_a_narrow_one_the_cause(overview: Overview) -> None:
    header = next(line for line in shown(overview, 40, 120).splitlines() if line.startswith("shard"))
    assert header.split() == ["shard", "state", "%", "tokens/s", "left", "GPU", "h", "node", "job", "details"]
    narrow = shown(overview, 40, 80).splitlines()
    header = next(line for line in narrow if line.startswith("shard"))
    assert header.split() == ["shard", "state", "%", "tokens/s", "node", "details"]
    (row,) = [line for line in narrow if line.split()[:2] == ["31", "failed"]]
    assert "127:0: line 21: /apps/ek/bin/python" in row
    assert row.rstrip().endswith("…")


def test_whole_causes_are_shown_where_there_is_no_terminal(overview: Overview) -> None:
    text = shown(overview, None, 1000)
    assert "CUDA_LAUNCH_BLOCKING=1; then type: embedkit rerun /runs/demo" in text
    assert (
        "3 of 9 files are missing or damaged: part-00001: not finished; part-00002: sha256 differs; to repair" in text
    )
    assert "line 21: /apps/ek/bin/python: No such file or directory" in text
    assert "held by process 4711 of user bob" in text
    assert "it ended without an exit record: n3 was lost" in text
    assert "preempted by a job with a higher priority" in text


@pytest.mark.parametrize(
    ("state", "reason", "word", "sentence"),
    [
        ("PENDING", "JobHeldUser", "held", "held by you (scontrol hold, or hold in the profile); to start them: "),
        ("PENDING", "launch failed requeued held", "held", "a node could not start them; report the node"),
        ("SPECIAL_EXIT", "None", "held", "held, with a mark (SPECIAL_EXIT); find the cause"),
        ("CONFIGURING", "None", "configuring", "the node is starting up; wait"),
        ("SUSPENDED", "None", "suspended", "paused by Slurm or an administrator; not hung; wait"),
        ("STOPPED", "None", "suspended", "to go on: scancel --signal=CONT 5_1"),
        ("COMPLETING", "None", "completing", "the node cleans up; wait; after some minutes report n1 to your site"),
        ("STAGE_OUT", "None", "completing", "files are being copied out"),
        ("PENDING", BUDGET, "pending", "the budget of the account is used up"),
        ("PENDING", "AssocGrpGRES", "pending", "uses as much at once as it may; wait"),
        ("PENDING", UNAVAILABLE, "pending", "gpu[001-004] cannot be used now; wait"),
        ("PENDING", "ReasonOfTomorrow", "pending", "1 pending (ReasonOfTomorrow): shards 1"),
        ("PENDING", "Priority", "pending", "1 pending (Priority): shards 1"),
        ("REQUEUED", "None", "pending", "1 pending: shards 1"),
        ("RUNNING", "None", "running", "nothing new for 25.0 min"),
        ("STATE_OF_TOMORROW", "None", "running", "STATE_OF_TOMORROW"),
    ],
)
def test_a_state_has_its_word_its_sentence_and_what_to_do(state: str, reason: str, word: str, sentence: str) -> None:
    """Quiet for 25 minutes in each of them; only a task that is RUNNING is hung."""
    node = "" if word in ("pending", "held") else "n1"
    observed = RunObservations(
        run=RUN,
        status=status([shard(0, state="done", done=10), shard(1, changed=NOW - 1500)]),
        now=NOW,
        submissions=[submission(array="0-1")],
        queue=[queued(1, state, reason, node, LONG_AGO)],
        attempts={"embed-00001": [Attempt(event("started", LONG_AGO), None)]},
        errors={},
    )
    found = make_overview(observed)
    assert found.shards[1].state == word
    assert found.shards[1].alert == ("hung" if state == "RUNNING" else "")
    assert (found.shards[1].quiet_seconds is not None) is (word == "running")
    assert found.is_alive
    assert sentence in flat(shown(found, 24, 80))
    assert sentence in flat(shown(found))


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_command_is_not_cut_in_two_by_a_line_break(overview: Overview, width: int) -> None:
    """A person copies it from the screen."""
    lines = [line.strip() for line in shown(overview, 60, width).splitlines()]
    for command in ("scontrol release '5_[34-40]'", "scontrol release 5_41", "scontrol requeue 5_13"):
        assert any(command in line for line in lines), command


def held_jobs(jobs: Sequence[int]) -> Overview:
    """Shards that are jobs of their own, all held."""
    fields = {name: getattr(submission(), name) for name in Submission.__struct_fields__}
    tasks = [Task(str(job), None, "PENDING", "JobHeldUser", "", "") for job in jobs]
    return make_overview(
        RunObservations(
            run=RUN,
            status=status([shard(number, done=0) for number in range(len(jobs))]),
            now=NOW,
            submissions=[
                Submission(**(fields | {"job": str(job), "array": str(number)})) for number, job in enumerate(jobs)
            ],
            queue=[LiveTask(task, "embed", (number,)) for number, task in enumerate(tasks)],
            attempts={},
            errors={},
        )
    )


def printed(overview: Overview, run: RunFolder = RUN, width: int = 80) -> list[str]:
    """The lines that a terminal gets; it breaks those that are longer than it is wide."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, no_color=True, width=width, height=24, legacy_windows=False)
    print_overview(overview, run, console)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in file.getvalue().splitlines()]
    assert sum(max(1, -(-len(line) // width)) for line in lines) <= 23
    return lines


def test_jobs_in_a_row_are_named_by_a_range_of_bash() -> None:
    jobs = [*range(10_000_000, 10_000_064), 10_000_100, *range(10_000_200, 10_000_210)]
    (line,) = [line for line in printed(held_jobs(jobs)) if "scontrol release" in line]
    named = line.partition("scontrol release ")[2]
    assert named == "{10000000..10000063} 10000100 {10000200..10000209}"
    typed = subprocess.run(["bash", "-c", f"echo {named}"], capture_output=True, text=True, check=True)
    assert typed.stdout.split() == [str(job) for job in jobs]


def test_a_command_longer_than_a_line_is_printed_unbroken() -> None:
    """The terminal breaks it, so that a copy has no line break."""
    jobs = range(10_000_000, 10_000_128, 2)
    (line,) = [line for line in printed(held_jobs(jobs)) if "scontrol release" in line]
    assert line.endswith(f"scontrol release {' '.join(map(str, jobs))}")


@pytest.mark.parametrize("name", ["full-v1", "with space, (and) comma; 'quoted'"])
def test_a_command_with_a_long_path_is_printed_unbroken(overview: Overview, name: str) -> None:
    run = RunFolder(Path(f"/lustre/{'projects_of_the_group/' * 3}embeddings/{name}"))
    lines = printed(overview, run)
    assert any(line.endswith(f"embedkit logs {shlex.quote(str(run.path))} --failed") for line in lines)
    assert any(run.resume_command in line for line in lines)


@given(st.text(st.sampled_from("ab ;(,"), max_size=200), st.integers(10, 90))
def test_a_folded_text_has_all_its_words(text: str, width: int) -> None:
    folded = fold(f"{text} scontrol release 5_1 {text}", width)
    assert folded.split() == f"{text} scontrol release 5_1 {text}".split()
    assert "scontrol release 5_1" in folded


def test_before_a_plan_held_tasks_are_named_by_their_array() -> None:
    observed = RunObservations(
        run=RUN,
        status=status([], stage="prepare"),
        now=NOW,
        submissions=[submission(array="0-2")],
        queue=[queued(index, "PENDING", "JobHeldUser") for index in range(3)],
        attempts={},
        errors={},
    )
    found = make_overview(observed)
    assert found.stages[1].tasks == {"held": 3}
    assert "held: embed: held by you" in flat(shown(found, 24, 80))
    assert "scontrol release 5" in flat(shown(found, 24, 80))


def test_a_suspension_in_between_is_no_quiet_time() -> None:
    observed = RunObservations(
        run=RUN,
        status=status([shard(0, changed=NOW - 3000)]),
        now=NOW,
        submissions=[submission(array="0")],
        queue=[queued(0, "RUNNING", node="n1", start=LONG_AGO)],
        attempts={},
        errors={},
    )
    assert make_overview(observed).shards[0].alert == "hung"
    resumed = make_overview(replace(observed, resumed={"5_0": NOW - 20}))
    assert (resumed.shards[0].alert, resumed.shards[0].quiet_seconds) == ("", 20)


@pytest.mark.parametrize("stage", ["prepare", "preflight"])
def test_a_failed_stage_is_reported_once(stage: Any) -> None:
    """embed never started and merge found no shard: both only because of the stage before."""
    name = {"prepare": "prepare failed", "preflight": "the preflight failed"}[stage]
    fields = {field: getattr(submission(), field) for field in Submission.__struct_fields__}
    first = Submission(**(fields | {"stage": stage, "job": "4", "array": "", "dependency": ""}))
    embed = Submission(**(fields | {"array": "0-63", "dependency": "afterok:3:4"}))
    failure = Attempt(event("started", LONG_AGO, job="4"), event("failed", LONG_AGO, "no driver", job="4"))
    merge = Attempt(event("started", LONG_AGO, job="6"), event("failed", LONG_AGO, "plan.json: no plan yet", job="6"))
    observed = RunObservations(
        run=RUN,
        status=status([] if stage == "prepare" else [shard(number, done=0) for number in range(64)], stage=stage),
        now=NOW,
        submissions=[first, embed, merge_of("5")],
        queue=[],
        records=[],
        attempts={stage: [failure], "merge": [merge]},
        errors={},
        logs=frozenset({stage, "merge"}),
    )
    if stage == "preflight":
        observed = replace(observed, status=replace_stage(observed, "embed"))
    found = make_overview(observed)
    by_stage = {view.stage: view for view in found.stages}
    assert by_stage[stage].why == "no driver"
    assert by_stage["embed"].tasks == {"cancelled": 64}
    assert (by_stage["merge"].tasks, by_stage["merge"].why) == ({"failed": 1}, name)
    text = flat(shown(found, 24, 80))
    assert text.count("no driver") == 1
    assert "no plan yet" not in text
    if stage == "preflight":
        assert "64 cancelled (the preflight failed): shards 0-63" in text
        assert "left the queue" not in text


def replace_stage(observed: RunObservations, stage: Any) -> Any:
    return status(observed.status.shards, stage=stage)


def test_a_failure_with_a_code_says_in_full_what_to_do() -> None:
    """Such messages are long, and what to do comes last. The code is that of any error with one."""
    why = (
        f"n1: the GPU has 70 GiB of its memory in use by process 4711 {'x' * 80} {{odd}}; report it, or: embedkit rerun"
    )
    ends = [msgspec.structs.replace(event("failed", NOW - 60, why), error_code="some-code")]
    observed = RunObservations(
        run=RUN,
        status=status([shard(0, state="done", done=10), shard(1)]),
        now=NOW,
        submissions=[submission(array="0-1")],
        queue=[],
        records=[ended(1, "FAILED", "1:0")],
        attempts={"embed-00001": [Attempt(event("started", LONG_AGO), end) for end in ends]},
        errors={},
    )
    found = make_overview(observed)
    assert found.shards[1].error_code == "some-code"
    assert f"1 failed: shards 1: {why}" in flat(shown(found, 24, 80))


@pytest.mark.parametrize(("height", "rows"), [(16, 5), (24, 11), (60, 38)])
def test_many_equal_failures_leave_room_for_hung_shards(height: int, rows: int) -> None:
    """32 shards failed with one cause, on different rows; 6 are hung."""
    cause = "(ids 5 to 9): RuntimeError: CUDA error: out of memory\nmore"
    observed = RunObservations(
        run=RUN,
        status=status([shard(number, changed=NOW - 1500) for number in range(38)]),
        now=NOW,
        submissions=[submission(array="0-37")],
        queue=[queued(number, "RUNNING", node="n1", start=LONG_AGO) for number in range(32, 38)],
        records=[ended(number, "FAILED", "1:0") for number in range(32)],
        attempts={f"embed-{n:05d}": failed(n, f"the engine failed on rows {n} to {n + 8} {cause}") for n in range(32)},
        errors={},
    )
    lines = shown(make_overview(observed), height, 80).splitlines()
    labels = [line.split()[1] for line in lines if line[:5].strip().isdecimal()]
    assert len(labels) >= rows
    assert labels == sorted(labels)  # failed before hung
    assert labels.count("hung") >= min(6, rows // 2)
    (first,) = [line for line in lines if line.split()[:2] == ["0", "failed"]]
    assert "RuntimeError: CUDA error: out of mem" in first
    assert "rows 0 to 8" in shown(make_overview(observed), height, 160)


def test_each_node_with_a_held_gpu_is_named_with_its_process() -> None:
    """14 shards on 12 nodes, n2 to n13; the last two ran on n2 as well."""
    nodes = [f"n{13 - number % 12}" for number in range(12)] + ["n2", "n2"]
    attempts = {}
    for number, node in enumerate(nodes):
        why = (
            f"GPU 0 (GPU-{number:08d}, H100) of node {node} has 9.0 of 80.0 GiB free: process {number + 100} (vllm, "
            f"user bob) holds 71.0 GiB; report the node, jobs there share GPUs. A rerun stays away from {node}"
        )
        start, end = (
            msgspec.structs.replace(event(what, NOW - 60, text, job=f"5_{number}"), node=node, error_code="gpu-held")
            for what, text in (("started", ""), ("failed", why))
        )
        attempts[f"embed-{number:05d}"] = [Attempt(start, end)]
    observed = RunObservations(
        run=RUN,
        status=status([shard(number) for number in range(14)]),
        now=NOW,
        submissions=[submission(array="0-13")],
        queue=[],
        records=[ended(number, "FAILED", "1:0", node) for number, node in enumerate(nodes)],
        attempts=attempts,
        errors={},
    )
    text = flat(shown(make_overview(observed), 24, 80))
    assert "shards 11-13: GPU 0 (GPU-00000011, H100) of node n2 has 9.0" in text
    assert "A rerun stays away from n2" in text
    assert "the same fault on n3 (shards 10): process 110 (vllm, user bob); n4 (shards 9): process 109 (vllm" in text
    assert "n6 (shards 7): process 107 (vllm, user bob); 7 more nodes: n7, n8, n9, n10, n11, n12, n13" in text


def test_preempted_tasks_are_named_while_they_wait() -> None:
    observed = RunObservations(
        run=RUN,
        status=status([shard(number, done=0) for number in range(3)]),
        now=NOW,
        submissions=[submission(array="0-2")],
        queue=[queued(0, "PENDING", "BeginTime"), queued(1, "RUNNING", node="n1"), queued(2, "PENDING", "Resources")],
        records=[ended(0, "PREEMPTED", "0:15"), ended(1, "PREEMPTED", "0:15")],
        attempts={},
        errors={},
    )
    found = make_overview(observed)
    assert found.notes == ("preempted by jobs of higher priority; Slurm starts them again by itself: shards 0",)
    assert [view.state for view in found.shards] == ["pending", "running", "pending"]
    assert [view.attempts for view in found.shards] == [1, 1, 0]


@pytest.mark.parametrize(
    ("shards", "expected", "shown_as"),
    [
        (["0", "1", "2", "3"], "{160..165}", "jobs 161, 162, 163, 164, JobHeldUser"),
        (["0-1", "2-3"], "160 161 162 165", "jobs 161, 162, JobHeldUser"),
        ([], "160 161 165", "job 161, JobHeldUser"),
    ],
    ids=["one shard per job", "two shards per job", "array"],
)
def test_before_a_plan_every_held_job_is_named(shards: list[str], expected: str, shown_as: str) -> None:
    """embed without an array has many jobs. All of them are held, and prepare is not done."""
    overview = make_overview(held_before_prepare(shards))
    text = flat(shown(overview))
    assert f"to start them: scontrol release {expected}" in text
    assert shown_as in text


def test_before_a_plan_the_last_held_job_is_named() -> None:
    """The others were released, and wait for prepare."""
    observed = held_before_prepare(["0", "1", "2", "3"], released=3)
    text = flat(shown(make_overview(observed)))
    assert "scontrol release 160 164 165" in text
    assert "job 164, JobHeldUser" in text
    assert "pending: embed" not in text


def held_before_prepare(shards: list[str], released: int = 0) -> RunObservations:
    """A run whose jobs are all held: prepare 160, embed from 161 (one array if `shards` is empty), merge 165."""

    def line(stage: str, job: int, **more: Any) -> Submission:
        fields = {name: getattr(submission(), name) for name in Submission.__struct_fields__}
        return Submission(**(fields | {"stage": stage, "job": str(job), "array": ""} | more))

    def held(one: Submission, index: int | None = None, reason: str = "JobHeldUser") -> LiveTask:
        task = Task(str(one.job), index, "PENDING", reason, "", "")
        return LiveTask(task, one.stage, one.shards_of(index))

    prepare, merge = line("prepare", 160), line("merge", 165)
    if not shards:
        array = line("embed", 161, array="0-3%4")
        lines, tasks = [array], [held(array, index) for index in range(4)]
    else:
        lines = [line("embed", job, shards=spec) for job, spec in enumerate(shards, 161)]
        reasons = ["Dependency"] * released + ["JobHeldUser"] * (len(lines) - released)
        tasks = [held(one, reason=reason) for one, reason in zip(lines, reasons, strict=True)]
    nothing = msgspec.structs.replace(status([]), stage="prepare", rows_prepared=0, tokens=None)
    return RunObservations(
        run=RUN,
        status=nothing,
        now=NOW,
        submissions=[prepare, *lines, merge],
        queue=[held(prepare), *tasks, held(merge)],
        attempts={},
        errors={},
    )
