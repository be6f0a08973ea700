"""Arrays, the queue and the settings, as Slurm prints them."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.slurm.client import Task, array_indices, array_spec, own_environment, parse_configuration
from jobs.slurm.squeue import parse_queue
from jobs.submit.chain import ChainJob
from tests.support.fuzzing import tries
from tests.support.slurm.stand_ins import in_queue_format

# Arrays


@tries(80)
@given(st.sets(st.integers(0, 5000), min_size=1), st.none() | st.integers(1, 500))
def test_an_array_reads_back_as_it_was_written(indices: set[int], parallel: int | None) -> None:
    job = ChainJob("embed", indices=tuple(sorted(indices)), parallel=parallel)
    assert array_indices(job.array) == job.indices
    assert array_indices(array_spec(sorted(indices))) == job.indices
    assert job.array.endswith("" if parallel is None else f"%{parallel}")


def test_an_array_that_slurm_writes_with_a_step_is_read() -> None:
    assert array_indices("0-34:2%4") == tuple(range(0, 35, 2))
    assert [task.index for task in parse_queue(in_queue_format("7|1,5-9:2|PENDING|Priority||lab|normal|N/A|x\n"))] == [
        1,
        5,
        7,
        9,
    ]
    assert [task.index for task in parse_queue(in_queue_format("7|1-9,...|PENDING|Priority||lab|normal|N/A|x\n"))] == [
        None
    ]


def test_an_array_is_written_briefly() -> None:
    assert array_spec([0, 1, 2, 17, 20, 21]) == "0-2,17,20-21"
    assert array_spec(range(1000)) == "0-999"


# Recorded on Slurm 22.05, except where a test says that it is made up.

QUEUE = """\
9|N/A|RUNNING|None|n5|lab|normal|2026-11-22T22:38:18|(null)
1|2|PENDING|JobArrayTaskLimit||lab|normal|N/A|embedkit-ab|c d
2|N/A|PENDING|Dependency||lab|normal|N/A|embedkit-0123
6|N/A|PENDING|DependencyNeverSatisfied||lab|normal|N/A|embedkit-stuck
8|3|PENDING|JobHeldUser||small|normal|N/A|(null)
1|0|RUNNING|None|n1|lab|normal|2026-11-22T22:38:19|embedkit-ab|c d
9|N/A|PENDING|BeginTime||lab|normal|2026-11-22T22:40:00|(null)
1|2-9%2|PENDING|JobArrayTaskLimit||lab|normal|N/A|embedkit-ab|c d
13|N/A|PENDING|JobHeldUser||lab|normal|N/A|two
lines
"""
CONFIGURATION = """\
Configuration data as of 2026-11-22T22:38:18
AccountingStorageBackupHost = (null)
AccountingStorageEnforce = associations,limits
AuthInfo                = socket=/tmp/a b/munge/socket,cred_expire=5
MailDomain              =
MaxArraySize            = 1001
MaxJobCount             = 10000

Slurmctld(primary) at vm is UP
"""


def test_the_queue_is_read_whatever_comments_contain() -> None:
    """The last job is not ours; its comment has a line break."""
    tasks = parse_queue(in_queue_format(QUEUE))
    assert len(tasks) == 16
    more = {"submitted": 1795387097.0}
    assert tasks[0] == Task("9", None, "RUNNING", "None", "n5", "(null)", "lab", "normal", 1795387098.0, **more)
    assert tasks[1] == Task("1", 2, "PENDING", "JobArrayTaskLimit", "", "embedkit-ab|c d", "lab", "normal", **more)
    assert tasks[-1].comment == "two\nlines"
    assert [task.name for task in tasks] == [
        *("9", "1_2", "2", "6", "8_3", "1_0", "9"),
        *(f"1_{index}" for index in range(2, 10)),
        "13",
    ]
    assert [task.job for task in tasks if task.never_starts] == ["6"]
    assert parse_queue("") == []


def test_states_of_later_versions_are_kept_as_they_are() -> None:
    """Made up."""
    (task,) = parse_queue(in_queue_format("5|1|STATE_OF_TOMORROW|a reason|n[1-2]|lab|normal|N/A|x\n"))
    assert (task.state, task.reason, task.never_starts) == ("STATE_OF_TOMORROW", "a reason", False)


def test_the_configuration_is_read() -> None:
    found = parse_configuration(CONFIGURATION)
    assert found["MaxArraySize"] == "1001"
    assert found["AccountingStorageEnforce"] == "associations,limits"
    assert found["AuthInfo"] == "socket=/tmp/a b/munge/socket,cred_expire=5"


def test_variables_of_a_surrounding_job_are_hidden_and_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = {"SLURM_JOB_ID": "1", "SBATCH_PARTITION": "x", "SRUN_DEBUG": "3", "SUBMITIT_EXECUTOR": "x", "HF_TOKEN": "t"}
    for name, value in (left | {"SLURM_CONF": "/c", "OMP_NUM_THREADS": "2"}).items():
        monkeypatch.setenv(name, value)
    with own_environment():
        assert not left.keys() & os.environ.keys()
        assert os.environ["SLURM_CONF"] == "/c"
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert left.items() <= os.environ.items()
