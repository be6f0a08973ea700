"""What Slurm tells a process about its job: the only place that reads the variables which describe it."""

import os
import socket

from embedkit.job import JobContext

OTHER_PYTHON = "EMBEDKIT_PYTHON"
"""The variable with the Python that the profile names (`python`). It is not set if that is the one that submits."""


def job_of_this_process() -> JobContext:
    """The job that Slurm started this process in; the default context outside of Slurm."""
    job, index, cpus = os.environ.get("SLURM_JOB_ID", ""), array_index(), os.environ.get("SLURM_CPUS_PER_TASK")
    return JobContext(
        name=(job or "local") if index is None else f"{os.environ['SLURM_ARRAY_JOB_ID']}_{index}",
        id=job,
        restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        node=os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        cpus=int(cpus) if cpus else None,
        python=os.environ.get(OTHER_PYTHON) or None,
    )


def array_index() -> int | None:
    """This process's index in a job array; None if its job is no task of one."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return int(index) if array and index else None


def start_and_end() -> tuple[float, float] | None:
    """When this job started, and the end of its time limit, in seconds since the epoch; None before Slurm 22.05."""
    texts = [os.environ.get(f"SLURM_JOB_{name}_TIME", "") for name in ("START", "END")]
    return (float(texts[0]), float(texts[1])) if all(text.isdecimal() for text in texts) else None
