"""The parsers on recorded output of several versions of Slurm; tests/data/slurm/README.md describes it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from embedkit.errors import EmbedkitError
from jobs.monitor.logs import error_line, newest_attempt, says_out_of_memory
from jobs.profiles.schema import Resources
from jobs.slurm import read_cluster
from jobs.slurm.accounting import FIELDS, JobRecord, history, parse_history
from jobs.slurm.client import Task, parse_configuration, parse_state, state_of
from jobs.slurm.cluster import Site
from jobs.slurm.read_cluster import with_accounts
from jobs.slurm.squeue import parse_queue
from jobs.slurm.stop_cause import StopCause, stop_cause
from jobs.submit.account_limits import submit_limits
from tests.conftest import ROOT
from tests.support.slurm.record import ASSOC_FIELDS, QOS_FIELDS
from tests.support.slurm.stand_ins import in_queue_format

RECORDED = ROOT / "tests" / "data" / "slurm"
VERSIONS = sorted(path.parent.name for path in RECORDED.glob("*/jobs.json"))
MIB = 1 << 20
RECORDED_FIELDS = {"assoc": ASSOC_FIELDS, "qos": QOS_FIELDS, "user": ("DefaultAccount",)}

pytestmark = pytest.mark.parametrize("version", VERSIONS)

STARTS = {
    ("array", 0): ["COMPLETED 0:0"],
    ("array", 1): ["FAILED 3:0"],
    ("array", 2): ["FAILED 0:9"],
    ("array", 3): ["CANCELLED 0:0"],
    ("array", 4): ["COMPLETED 0:0"],
    ("steps", None): ["COMPLETED 0:0"],
    ("fails", None): ["FAILED 3:0"],
    ("signal", None): ["FAILED 0:9"],
    ("cancelled", None): ["CANCELLED"],
    ("time", None): ["TIMEOUT"],
    ("memory", None): ["OUT_OF_MEMORY 0:125"],
    ("again", 3): ["REQUEUED", "COMPLETED 0:0"],
    ("lost", 7): ["NODE_FAIL", "COMPLETED 0:0"],
    ("lost_once", None): ["NODE_FAIL"],
    ("preempted", None): ["PREEMPTED", "COMPLETED 0:0"],
    ("preempted_once", None): ["PREEMPTED"],
    ("high", None): ["COMPLETED 0:0"],
}
"""How each start ended, with its exit code where all versions agree. Jobs cancelled before a start have none."""
# 24.11.5 took the late end of a start as a second preemption, and ran the job a third time.
STARTS_OF = {"24.11": STARTS | {("preempted", None): ["PREEMPTED", "PREEMPTED 0:0", "COMPLETED 0:0"]}}


def recorded(version: str, name: str) -> str:
    return (RECORDED / version / name).read_text()


def names(version: str) -> dict[str, str]:
    """The name in the scenario of each job id."""
    return {job: name for name, job in json.loads(recorded(version, "jobs.json")).items()}


def starts(version: str, what: str) -> dict[tuple[str, int | None], list[JobRecord]]:
    found: dict[tuple[str, int | None], list[JobRecord]] = {}
    for record in parse_history(recorded(version, f"{what}.txt")):
        found.setdefault((names(version)[record.job], record.index), []).append(record)
    return found


def queued(version: str) -> dict[tuple[str, int | None], Task]:
    tasks = parse_queue(in_queue_format(recorded(version, "squeue-running.txt")))
    found = {(names(version)[task.job], task.index): task for task in tasks}
    assert len(found) == len(tasks)
    return found


def test_the_recordings_are_of_their_version(version: str) -> None:
    assert recorded(version, "version.txt").startswith(f"slurm-wlm {version}.")
    assert parse_configuration(recorded(version, "config.txt"))["SLURM_VERSION"].startswith(version)


def test_the_queue_is_read_with_a_comment_of_two_lines(version: str) -> None:
    tasks = queued(version)
    assert {name for name, _ in tasks} <= set(names(version).values())
    array = [tasks["array", index] for index in range(6)]
    assert [task.state for task in array] == ["RUNNING"] * 2 + ["PENDING"] * 4
    assert {task.reason for task in array[2:]} == {"JobArrayTaskLimit"}
    assert {task.comment for task in array} == {"embedkit-ab|c d"}
    assert [task.start is None for task in array] == [False] * 2 + [True] * 4
    assert array[0].node.startswith("n")
    assert array[5].node == ""
    reasons = {name: tasks[name, None].reason for name in ("held", "lines", "dependency", "never", "later")}
    assert reasons == {
        "held": "JobHeldUser",
        "lines": "JobHeldUser",
        "dependency": "Dependency",
        "never": "DependencyNeverSatisfied",
        "later": "BeginTime",
    }
    assert [name for name, task in tasks.items() if task.never_starts] == [("never", None)]
    assert tasks["lines", None].comment == "embedkit-two\nlines|1|2|3|4|5|6|7|8|9"
    begin, now = tasks["later", None].start, array[0].start
    assert begin is not None
    assert now is not None
    assert 3500 < begin - now < 3700
    assert {(task.account, task.qos) for task in tasks.values()} == {("lab", "normal")}


@pytest.mark.parametrize("what", ["sacct-X-ended", "sacct-ended"])
def test_every_start_is_read_and_what_never_started_is_left_out(version: str, what: str) -> None:
    found = starts(version, what)
    expected = STARTS_OF.get(version, STARTS)
    assert found.keys() == expected.keys()
    for task, ends in expected.items():
        read = [f"{record.state} {record.exit_code}" for record in found[task]]
        assert len(read) == len(ends), task
        assert all(one.startswith(end) for one, end in zip(read, ends, strict=True)), (task, read)


@pytest.mark.parametrize("what", ["sacct-X-ended", "sacct-ended"])
def test_times_follow_each_other(version: str, what: str) -> None:
    records = [record for ends in starts(version, what).values() for record in ends]
    for record in records:
        times = [record.submitted, record.eligible, record.started, record.ended]
        assert None not in times, record
        assert times == sorted(times, key=float), record  # type: ignore[arg-type]
    (timed,) = starts(version, what)["time", None]
    assert 60 <= (timed.ended or 0) - (timed.started or 0) < 120
    first, second = starts(version, what)["again", 3]
    assert (first.ended or 0) < (second.started or 0)


@pytest.mark.parametrize("what", ["sacct-X-ended", "sacct-ended"])
def test_cpus_gpus_and_the_memory_that_was_asked_for(version: str, what: str) -> None:
    found = starts(version, what)
    asked = {task: (record.cpus, record.gpus, record.memory_requested) for task, (record, *_) in found.items()}
    assert asked["array", 0] == (1, 1, 100 * MIB)
    assert asked["steps", None] == (2, 1, 200 * MIB)  # 100 MB per CPU, which 20.11 writes as 100Mc
    assert asked["fails", None] == (1, 0, 200 * MIB)
    assert asked["memory", None] == (1, 0, 30 * MIB)
    assert asked["lost", 7] == (1, 1, 200 * MIB)
    assert asked["high", None] == (4, 2, 200 * MIB)  # --exclusive: the whole node


def test_steps_add_what_was_used_and_change_nothing_else(version: str) -> None:
    without, found = starts(version, "sacct-X-ended"), starts(version, "sacct-ended")
    plain = {task: [replace(r, cpu_seconds=None, memory=None) for r in records] for task, records in found.items()}
    assert plain == without
    lines = recorded(version, "sacct-ended.txt").splitlines()
    rows = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in lines]
    (steps,) = found["steps", None]
    spent = [row["TotalCPU"] for row in rows if row["JobID"].startswith(f"{steps.job}.")]
    assert len(spent) == 3  # .batch, .0, .1
    assert steps.cpu_seconds == pytest.approx(sum(float(time.removeprefix("00:")) for time in spent))
    assert steps.cpu_seconds > 0.5
    assert steps.memory is not None
    assert 30 * MIB < steps.memory < 60 * MIB  # that of its largest step
    (array,) = found["array", 0]
    assert array.memory is not None
    assert 20 * MIB < array.memory < 50 * MIB


def test_a_running_start_has_no_end_and_a_waiting_one_no_record(version: str) -> None:
    for what in ("sacct-X-running", "sacct-running"):
        found = starts(version, what)
        running = {task for task, (record, *_) in found.items() if record.state == "RUNNING"}
        assert running == {task for task, seen in queued(version).items() if seen.state == "RUNNING"}
        for task in running:
            assert [(record.ended, record.started is None) for record in found[task]] == [(None, False)]
        assert not {("array", 2), ("held", None), ("never", None), ("later", None), ("given_up", None)} & found.keys()
        assert found["array", 0][0].gpus == 1


def test_memory_that_was_polled_is_in_the_accounting(version: str) -> None:
    """OverMemoryKill: the state is only FAILED; the log and the memory used show the cause."""
    (record,) = parse_history(recorded(version, "sacct-polled.txt"))
    assert (record.state, record.memory_requested) == ("FAILED", 30 * MIB)
    assert record.memory is not None
    assert record.memory > 30 * MIB


def test_the_configuration_is_read(version: str) -> None:
    found = parse_configuration(recorded(version, "config.txt"))
    assert (found["MaxArraySize"], found["MaxJobCount"]) == ("1001", "10000")
    assert found["AccountingStorageEnforce"] == "associations,limits"
    assert found["ClusterName"] == "embedkit"


def test_limits_of_accounts_are_read(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recordings have only some of the fields; the stand-in refuses the rest as an older sacctmgr does."""

    def recorded_rows(*command: str) -> str:
        fields = command[-1].removeprefix("format=").split(",")
        unknown = [field for field in fields if field not in RECORDED_FIELDS[command[4]]]
        if unknown:
            raise EmbedkitError(f"sacctmgr failed: Unknown field '{unknown[0]}'")
        return recorded(version, f"{command[4]}.txt")

    monkeypatch.setattr(read_cluster, "run_slurm", recorded_rows)
    site = with_accounts(Site(user="user", settings=parse_configuration(recorded(version, "config.txt"))))
    _, *found = submit_limits(Resources(account="small"), site)
    assert [(limit.name, limit.most) for limit in found] == [
        ("MaxSubmit of account small", 20),
        ("MaxSubmit of account small, user user", 20),
    ]
    _, *found = submit_limits(Resources(), site)
    assert found == []  # lab, the default account, has none


@pytest.mark.parametrize(
    ("job", "state", "reason"),
    [
        ("array", "PENDING", "JobArrayTaskLimit"),
        ("array-0", "RUNNING", "None"),
        ("array-4", "PENDING", "JobArrayTaskLimit"),
        ("steps", "RUNNING", "None"),
        ("held", "PENDING", "JobHeldUser"),
        ("lines", "PENDING", "JobHeldUser"),
        ("dependency", "PENDING", "Dependency"),
        ("never", "PENDING", "DependencyNeverSatisfied"),
        ("later", "PENDING", "BeginTime"),
        ("fails", "FAILED", "NonZeroExitCode"),
    ],
)
def test_a_jobs_state_is_read(version: str, job: str, state: str, reason: str) -> None:
    assert parse_state(recorded(version, f"job-{job}.txt")) == (state, reason)


@pytest.mark.parametrize("job", ["unknown-job", "unknown-array-task"])
def test_a_job_that_slurm_no_longer_knows(version: str, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> str:
        raise EmbedkitError(f"scontrol failed: {recorded(version, f'{job}.txt')}")

    monkeypatch.setattr("jobs.slurm.client.run_slurm", refuse)
    assert state_of("99999") == ("", "")


@pytest.mark.parametrize(
    ("job", "cause"),
    [
        ("cancelled", "cancelled"),
        ("time", "other"),
        ("lost", "requeued"),
        ("lost_once", "other"),
        ("preempted", "requeued"),
        ("preempted_once", "cancelled"),  # it has no --requeue
        ("again", "requeued"),  # scontrol requeue
    ],
)
def test_a_job_that_is_being_ended_sees_why(
    version: str, job: str, cause: StopCause, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output of scontrol in the job itself, as it got SIGTERM."""
    monkeypatch.setattr("jobs.slurm.client.run_slurm", lambda *_: recorded(version, f"ending-{job}.txt"))
    assert stop_cause("1", restart=0) == cause


def test_without_accounting_there_is_no_history(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for sacct prints and exits as the real one did."""
    text, _, code = recorded(version, "sacct-none.txt").strip().rpartition("\nexit ")
    (tmp_path / "sacct").write_text(f"#!/bin/sh\necho '{text}' >&2\nexit {code}\n")
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert history(["1"]) is None


def test_only_logs_of_jobs_without_memory_say_so(version: str) -> None:
    logs = sorted((RECORDED / version / "logs").glob("*.log"))
    assert {path.stem for path in logs if says_out_of_memory(path)} == {"memory", "polled"}


def test_the_error_line_is_found_in_every_log_that_slurm_ended(version: str) -> None:
    folder = RECORDED / version / "logs"
    said = {path.stem: error_line(newest_attempt(path)) or "" for path in sorted(folder.glob("*.log"))}
    for name in ("array-3", "cancelled", "lost_once", "preempted_once", "time"):
        assert "CANCELLED AT 2026-11-" in said[name]
    assert "DUE TO TIME LIMIT" in said["time"].upper()
    assert "DUE TO NODE FAILURE" in said["lost_once"].upper()
    assert "DUE TO PREEMPTION" in said["preempted_once"].upper()
    assert "memory limit" in said["polled"]
    assert "oom" in said["memory"]
    assert said["fails"] == "ValueError: it did not work"
    assert not any(said[name] for name in ("again-3", "lost-7", "preempted", "array-0"))  # they went well in the end
