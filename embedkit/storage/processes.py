"""Processes: children do not outlive their parent, even one that was killed with -9; one is told from the next."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil


def exit_with_parent() -> None:
    """In a process started by multiprocessing: exit as soon as the parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        _when_ended(parent.join)


def exit_with(pid: int) -> None:
    """Exit, children and all, as soon as the process `pid` is gone."""
    try:
        owner = psutil.Process(pid)
    except psutil.NoSuchProcess:
        os._exit(1)
    _when_ended(owner.wait)


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to all, to the parent. Call it once polars is imported, which undoes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def kill_children() -> None:
    """Kill every descendant of this process; engines fork workers that ignore SIGTERM."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


def process_start(pid: int) -> str:
    """When a process began, "" if there is none: clock ticks since the boot, which no change of the clock moves.

    Source: proc(5), field 22 of /proc/PID/stat. psutil adds the boot time, which moves when the clock is set.
    """
    try:
        if not Path("/proc/self/stat").exists():  # not Linux
            return str(psutil.Process(pid).create_time())
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {ticks}"
    except (OSError, psutil.NoSuchProcess):
        return ""


def _when_ended(wait: Callable[[], object]) -> None:
    def watch() -> None:
        wait()
        kill_children()
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
