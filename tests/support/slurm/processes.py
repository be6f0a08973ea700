"""Find the processes of a cluster, and end them."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

SLURM = {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmstepd", "srun", "sbatch", "salloc"}


def is_running(process: psutil.Process) -> bool:
    """Whether a process runs. A zombie does not: in a container, no process may reap it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def of_cluster(folder: Path, node: str | None = None) -> list[psutil.Process]:
    """The daemons, steps and job processes of the cluster in `folder`, or of one of its nodes.

    A shell with SLURM_CONF exported, and its children, do not belong to it.
    """
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if process.pid not in spared and belongs(process, folder, node):
                # A process that a job started with an empty environment is found through its parents.
                found |= {p.pid: p for p in [process, *process.children(recursive=True)] if p.pid not in spared}
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for process in found.values() if is_running(process)]


def belongs(process: psutil.Process, folder: Path, node: str | None) -> bool:
    if process.name() == "slurmstepd":
        # Its title overwrites its command line and its environment; its log file identifies it.
        logs = {file.path for file in process.open_files()}
        if logs:
            return bool(logs & {str(log) for log in (folder / "log").glob(f"steps-{node or '*'}.log")})
    environment = process.environ()
    named = any(f"{folder}/" in text for text in [*process.cmdline(), environment.get("SLURM_CONF", "")])
    slurms = process.name() in SLURM or "SLURM_JOB_ID" in environment
    return named and slurms and node in (None, environment.get("SLURMD_NODENAME"))


def signal_all(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def kill_all(folder: Path, node: str | None = None) -> None:
    """Kill the processes of a cluster, or of one of its nodes, until none is found."""
    while left := of_cluster(folder, node):
        signal_all(left, signal.SIGKILL)
        time.sleep(0.02)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition; False if it is not true within that time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
