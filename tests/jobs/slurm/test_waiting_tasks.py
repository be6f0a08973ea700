"""The waiting tasks of embed, on recorded output and on a stand-in for scontrol."""

import json
from pathlib import Path

import pytest

from jobs.slurm.waiting_tasks import exclude_from_waiting_tasks, parse_waiting
from tests.conftest import ROOT

RECORDED = ROOT / "tests" / "data" / "slurm"


@pytest.mark.parametrize("version", ["20.11", "22.05", "24.11", "26.05"])
def test_recorded_array_has_its_waiting_tasks(version: str) -> None:
    folder = RECORDED / version
    jobs = json.loads((folder / "jobs.json").read_text())
    array = jobs["array"]
    assert parse_waiting((folder / "job-array.txt").read_text()) == [(f"{array}_[2-5]", ())]
    assert parse_waiting((folder / "job-array-0.txt").read_text()) == []  # it runs
    assert parse_waiting((folder / "job-held.txt").read_text()) == [(jobs["held"], ())]  # no array


def test_waiting_tasks_exclude_one_node_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "JobId=7 ArrayJobId=7 ArrayTaskId=5-9,12%2 JobName=a JobState=PENDING ExcNodeList=(null) NodeList=",
        "JobId=9 ArrayJobId=7 ArrayTaskId=1 JobName=a JobState=PENDING ExcNodeList=n[1-2] NodeList=",
        "JobId=8 ArrayJobId=7 ArrayTaskId=0 JobName=a JobState=RUNNING ExcNodeList=(null) NodeList=n1",
    ]
    shown, calls = tmp_path / "shown", tmp_path / "calls"
    shown.write_text("\n".join(lines))
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\n[ "$1" = show ] && cat {shown} || echo "$@" >> {calls}\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert exclude_from_waiting_tasks(["7"], "n3", others_fit=False)
    assert calls.read_text().splitlines() == [
        "update JobId=7_[5-9,12] ExcNodeList=n3",
        "update JobId=7_1 ExcNodeList=n[1-2],n3",
    ]
    shown.write_text(lines[2])
    assert not exclude_from_waiting_tasks(["7"], "n3", others_fit=False)
    shown.write_text("\n".join(lines))
    calls.unlink()
    assert not exclude_from_waiting_tasks(["7"], "n1", others_fit=False), (
        "no task runs elsewhere, so all nodes might be excluded"
    )
    assert not calls.exists()
    assert exclude_from_waiting_tasks(["7"], "n1", others_fit=True)


def test_waiting_single_jobs_exclude_the_node_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Job 7 runs, job 8 has ended and is forgotten, jobs 9 and 10 wait."""
    for job, fields in {"7": "RUNNING ExcNodeList=(null) NodeList=n1", "9": "PENDING ExcNodeList=n2 NodeList="}.items():
        (tmp_path / f"shown-{job}").write_text(f"JobId={job} JobName=r.embed-00001 JobState={fields}\n")
    (tmp_path / "shown-10").write_text("JobId=10 JobName=r.embed-00003 JobState=PENDING ExcNodeList=(null) NodeList=\n")
    (tmp_path / "scontrol").write_text(
        f'#!/bin/sh\n[ "$1" = show ] || {{ echo "$@" >> {tmp_path}/calls; exit 0; }}\n'
        f"cat {tmp_path}/shown-$4 2>/dev/null && exit 0\n"
        'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1\n'
    )
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert exclude_from_waiting_tasks(["7", "8", "9", "10"], "n3", others_fit=False)
    assert (tmp_path / "calls").read_text().splitlines() == [
        "update JobId=9 ExcNodeList=n2,n3",
        "update JobId=10 ExcNodeList=n3",
    ]
    assert not exclude_from_waiting_tasks(["7", "8", "9", "10"], "n1", others_fit=False)
