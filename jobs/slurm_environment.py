"""What Slurm tells a process about its job: the only place that reads the variables which describe it."""

import os
import socket

from embedkit.job import JobContext

OTHER_PYTHON = "EMBEDKIT_PYTHON"
"""The variable with the Python that the profile names (`python`). It is not set if that is the one that submits."""

SCRIPT_STARTED = "EMBEDKIT_SCRIPT_STARTED"
"""The variable with the start of this job's script, in seconds since the epoch. It is set in jobs with a launcher."""


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
        cluster=os.environ.get("SLURM_CLUSTER_NAME", "") if job else "",
    )


def array_index() -> int | None:
    """This process's index in a job array; None if its job is no task of one."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return int(index) if array and index else None


def script_started() -> float | None:
    """When this job's script started, by the node's clock; None if this process has replaced its shell."""
    text = os.environ.get(SCRIPT_STARTED, "")
    return float(text) if text.isdecimal() else None


def start_and_end() -> tuple[float, float] | None:
    """When this job started, and the end of its time limit, in seconds since the epoch; None before Slurm 22.05."""
    texts = [os.environ.get(f"SLURM_JOB_{name}_TIME", "") for name in ("START", "END")]
    return (float(texts[0]), float(texts[1])) if all(text.isdecimal() for text in texts) else None
