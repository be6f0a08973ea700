"""Read the job of this process from SLURM_* variables; no other module reads those that describe a job."""

import os
import socket

from embedkit.job import JobContext


def job_of_this_process() -> JobContext:
    """The Slurm job of this process; the default context outside of Slurm."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job:
        return JobContext()
    index, cpus = array_index(), os.environ.get("SLURM_CPUS_PER_TASK")
    return JobContext(
        name=job if index is None else f"{os.environ['SLURM_ARRAY_JOB_ID']}_{index}",
        id=job,
        restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        node=os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        cpus=int(cpus) if cpus else None,
    )


def array_index() -> int | None:
    """The array index of this process; None if its job is not an array task."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return int(index) if array and index else None
