"""One list of job states for two readers: the accounting (is a start over?), the run lock (may it still run?)."""

import pytest

from jobs.slurm.accounting import JobRecord
from jobs.slurm.states import RUNNING, UNKNOWN, WAITING, is_active, may_run

OVER = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "PREEMPTED", "TIMEOUT")


@pytest.mark.parametrize("state", [*RUNNING, *WAITING, *OVER, "REQUEUED", "STATE_OF_TOMORROW"])
def test_the_accounting_and_the_run_lock_agree_on_every_state(state: str) -> None:
    """What may still run is not over, and what is over cannot run."""
    record = JobRecord(job="1", index=None, state=state)
    assert record.is_over is not is_active(state)
    assert not (record.is_over and may_run(state))
    assert may_run(state) is (is_active(state) and state not in WAITING)


def test_a_job_may_run_where_slurm_does_not_answer() -> None:
    assert may_run(UNKNOWN)
    assert not may_run("")  # Slurm no longer knows the job
