"""Jobs that squeue does not show, by scontrol and sacct. Shell scripts answer in place of Slurm."""

import os
from pathlib import Path

import pytest

from embedkit.errors import EmbedkitError
from jobs.slurm import find_jobs
from jobs.slurm.find_jobs import (
    all_jobs,
    find_in_accounting,
    look_up,
    look_up_shown,
    parse_jobs,
    parse_states,
    still_active,
)
from tests.conftest import ROOT

RECORDED = ROOT / "tests" / "data" / "slurm"
UNKNOWN = 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1'
SILENT = 'echo "Unable to contact slurm controller (connect failure)" >&2; exit 1'
NO_SACCT = 'echo "Slurm accounting storage is disabled" >&2; exit 1'


def job(number: int, state: str, index: str = "", name: str = "run.embed", comment: str = "embedkit-0") -> str:
    """A line of scontrol, shortened."""
    array = f"ArrayJobId={number} ArrayTaskId={index} " if index else ""
    return (
        f"JobId={number} {array}JobName={name} UserId=user({os.getuid()}) JobState={state} Reason=None "
        f"SubmitTime=2026-11-22T22:38:17 StartTime=Unknown NodeList=n1 NumNodes=1 Command=/run/x.sh WorkDir=/run "
        f"Comment={comment} StdErr=/run/a=b.log"
    )


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Answers":
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return Answers(tmp_path)


class Answers:
    """What the commands answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def set(self, **texts: str) -> None:
        for name, text in texts.items():
            log = f'echo "{name} $*" >> {self.folder}/calls\n'
            (self.folder / name).write_text(f"#!/bin/bash\n{log}{text}\n")
            (self.folder / name).chmod(0o755)

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.split()[0] for line in lines]


def says(*lines: str) -> str:
    return "cat <<'END'\n" + "\n".join(lines) + "\nEND"


@pytest.mark.parametrize("version", ["20.11", "22.05", "24.11", "26.05"])
def test_recorded_jobs_of_scontrol_are_read(version: str) -> None:
    tasks = parse_jobs((RECORDED / version / "job-array.txt").read_text()) or []
    assert sorted((task.index, task.state) for task in tasks) == [
        *((index, "RUNNING") for index in (0, 1)),
        *((index, "PENDING") for index in (2, 3, 4, 5)),
    ]
    assert {(task.job_name, task.folder, task.comment) for task in tasks} == {
        ("demo.array", "/home/user/run", "embedkit-ab|c d")
    }
    (task,) = parse_jobs((RECORDED / version / "job-lines.txt").read_text()) or []
    assert (task.comment, task.state) == ("embedkit-two\nlines|1|2|3|4|5|6|7|8|9", "PENDING")
    (task,) = parse_jobs((RECORDED / version / "job-fails.txt").read_text()) or []
    assert task.state == "FAILED"


def test_states_of_sacct_are_read_with_waiting_tasks() -> None:
    text = "Welcome\n2_0|RUNNING\n2_[1-3%2]|PENDING\n7|CANCELLED by 1000\n7.batch|CANCELLED\n8_[x]|PENDING|\n"
    states = parse_states(text)
    assert states == {
        ("2", 0): "RUNNING",
        **{("2", index): "PENDING" for index in (1, 2, 3)},
        ("7", None): "CANCELLED",
        ("8", None): "PENDING",
    }


def test_sacct_alone_settles_tasks_that_ended(answers: Answers) -> None:
    answers.set(sacct=says("2_0|FAILED", "2_1|CANCELLED by 0", "7|COMPLETED"), scontrol=SILENT)
    assert look_up({"2": {0, 1}, "7": {None}}) == find_jobs.Found()
    assert answers.calls() == ["sacct"]


@pytest.mark.parametrize("sacct", [NO_SACCT, "exit 0", says("2_0|RUNNING", "2_[1-2]|PENDING"), says("2_0|NODE_FAIL")])
def test_scontrol_shows_tasks_that_squeue_hides(sacct: str, answers: Answers) -> None:
    running = says("Welcome", job(2, "RUNNING", "0"), job(2, "PENDING", "1-2%1"), job(2, "FAILED", "3"))
    answers.set(sacct=sacct, scontrol=running)
    found = look_up({"2": {0, 2, 3}})
    assert [(task.name, task.state) for task in found.active] == [("2_0", "RUNNING"), ("2_2", "PENDING")]
    assert found.unanswered == ()
    assert answers.calls() == ["sacct", "scontrol"]


@pytest.mark.parametrize("sacct", [NO_SACCT, "exit 0", says("2|RUNNING")])
def test_a_job_that_the_controller_does_not_know_has_ended(sacct: str, answers: Answers) -> None:
    """sacct may keep a start as RUNNING for ever after a crash of its daemon."""
    answers.set(sacct=sacct, scontrol=UNKNOWN)
    assert look_up({"2": {None}}) == find_jobs.Found()


@pytest.mark.parametrize("scontrol", [SILENT, "exit 0", "echo Welcome", "echo JobId=2 JobName=ru", "sleep 9; exit 1"])
def test_without_an_answer_a_job_has_not_ended(
    scontrol: str, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.slurm.client.TIMEOUT_SECONDS", 0.5)
    answers.set(sacct=says("2|RUNNING"), scontrol=scontrol)
    assert look_up({"2": {None}}).unanswered == ("2",)


def test_many_jobs_are_looked_up_with_one_call(answers: Answers) -> None:
    other = job(99, "RUNNING").replace(f"({os.getuid()})", f"({os.getuid() + 1})")
    answers.set(sacct=NO_SACCT, scontrol=says(*(job(number, "RUNNING") for number in range(1, 8)), other))
    found = look_up({str(number): {None} for number in range(2, 30)})
    assert [task.job for task in found.active] == ["2", "3", "4", "5", "6", "7"]
    assert answers.calls() == ["sacct", "scontrol"]
    assert [task.job for task in all_jobs()] == ["1", "2", "3", "4", "5", "6", "7"]


def test_of_tasks_in_squeue_scontrol_is_asked_before_sacct(answers: Answers) -> None:
    answers.set(scontrol=says(job(2, "COMPLETING", "0"), job(2, "CANCELLED", "1-3")), sacct=says("2_0|CANCELLED"))
    assert [task.name for task in look_up_shown({"2": {0, 1}}).active] == ["2_0"]
    assert answers.calls() == ["scontrol"]
    answers.set(scontrol=SILENT, sacct=says("2_0|CANCELLED", "2_1|CANCELLED", "3_0|FAILED"))
    assert look_up_shown({"2": {0, 1}, "3": {0, 1}}) == find_jobs.Found((), ("3",))
    answers.set(scontrol=UNKNOWN)
    assert look_up_shown({"2": {0, 1}}) == find_jobs.Found()


def test_no_job_at_all_is_an_answer_and_a_banner_is_none(answers: Answers) -> None:
    answers.set(scontrol="echo No jobs in the system")
    assert all_jobs() == []
    answers.set(scontrol="echo Welcome")
    with pytest.raises(EmbedkitError, match="scontrol printed something that is not its answer: 'Welcome'"):
        all_jobs()


def test_cancelled_jobs_are_gone_once_they_complete(answers: Answers) -> None:
    answers.set(scontrol=says(job(2, "COMPLETING", "0"), job(2, "CANCELLED", "1-3")))
    assert still_active(["2"], 0.0) == find_jobs.Found()
    answers.set(scontrol=says(job(2, "RUNNING", "0")))
    assert [task.name for task in still_active(["2"], 0.0).active] == ["2_0"]


def test_a_job_is_found_in_the_accounting_by_name_and_folder(answers: Answers) -> None:
    rows = (
        "5|run.merge|/run|2026-11-22T10:00:00",  # an earlier one
        "7|run.merge|/run|2026-11-22T22:38:17",
        "8|run.merge|/else|2026-11-22T22:38:17",
        "9|other.merge|/run|2026-11-22T22:38:17",
    )
    answers.set(sacct=says(*rows))
    assert find_in_accounting("run.merge", "/run", 1795387000.0) == "7"
    assert find_in_accounting("run.embed", "/run", 1795387000.0) is None
