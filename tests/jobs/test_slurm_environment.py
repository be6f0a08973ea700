import socket

import pytest

from embedkit.job import JobContext
from jobs.slurm_environment import array_index, job_of_this_process

ARRAY = {"SLURM_JOB_ID": "130", "SLURM_ARRAY_JOB_ID": "123", "SLURM_ARRAY_TASK_ID": "7", "SLURMD_NODENAME": "n4"}


@pytest.mark.parametrize(
    ("variables", "job", "index"),
    [
        ({}, JobContext("local", "", 0, socket.gethostname(), None), None),
        ({"SLURM_CPUS_PER_TASK": "8"}, JobContext("local", "", 0, socket.gethostname(), 8), None),
        ({"SLURM_JOB_ID": "12"}, JobContext("12", "12", 0, socket.gethostname(), None), None),
        (ARRAY, JobContext("123_7", "130", 0, "n4", None), 7),
        (ARRAY | {"SLURM_RESTART_COUNT": "2", "SLURM_CPUS_PER_TASK": "8"}, JobContext("123_7", "130", 2, "n4", 8), 7),
    ],
)
def test_slurms_variables_become_one_object(
    variables: dict[str, str], job: JobContext, index: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*ARRAY, "SLURM_RESTART_COUNT", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert job_of_this_process() == job
    assert array_index() == index
