"""When tasks were suspended, from recorded output, and with a shell script in place of scontrol for many tasks."""

import os
from pathlib import Path

import pytest

from jobs.slurm.suspensions import MOST_CALLS, parse_suspensions, suspensions
from tests.conftest import ROOT

AT = "2026-11-23T02:30:00"
SECONDS = 1795401000.0
RECORDED = ROOT / "tests" / "data" / "slurm"


@pytest.mark.parametrize("version", sorted(path.parent.name for path in RECORDED.glob("*/job-array.txt")))
def test_each_task_of_an_array_has_its_own_suspension(version: str) -> None:
    text = (RECORDED / version / "job-array.txt").read_text()
    assert parse_suspensions(text) == {}
    lines = text.splitlines()
    suspended = [line.replace("SuspendTime=None", f"SuspendTime={AT}") for line in lines if " ArrayTaskId=1 " in line]
    others = [line for line in lines if " ArrayTaskId=1 " not in line]
    [name] = parse_suspensions("\n".join(suspended))
    assert parse_suspensions("\n".join([*others, *suspended])) == {name: SECONDS}
    assert name.endswith("_1")


@pytest.mark.parametrize("jobs", [1, MOST_CALLS, 64])
def test_64_tasks_take_one_call_per_array(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many jobs that are no arrays take one call together."""
    tasks = [f"{100 + n}" if jobs == 64 else f"{100 + n % jobs}_{n}" for n in range(64)]
    lines = []
    for task in [*tasks, "999_3"]:
        job, _, index = task.partition("_")
        array = f"ArrayJobId={job} ArrayTaskId={index} " if index else ""
        lines.append(f"JobId={5000 + int(index) if index else job} {array}JobName=x SuspendTime={AT} SecsPreSuspend=5")
    (tmp_path / "lines").write_text("\n".join(lines))
    (tmp_path / "scontrol").write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\ncat {tmp_path}/lines\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert suspensions(tasks) == dict.fromkeys(tasks, SECONDS)
    assert len((tmp_path / "calls").read_text().splitlines()) == (1 if jobs == 64 else jobs)
