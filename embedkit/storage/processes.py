"""Processes: children that end with their parent, even one killed with SIGKILL, and how to identify a process."""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

HOST_NAMESPACE = 0xEFFFFFFC
"""The number that Linux gives to the PID namespace of the host itself."""


def exit_with_parent() -> None:
    """Make this process, started by multiprocessing, exit as soon as its parent ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        _exit_after(parent.join)


def exit_with_process(pid: int) -> None:
    """Make this process and its descendants exit as soon as the process `pid` ends."""
    try:
        owner = psutil.Process(pid)
    except psutil.NoSuchProcess:
        os._exit(1)
    _exit_after(owner.wait)


def ignore_interrupts() -> None:
    """Ignore SIGINT: a terminal sends Ctrl-C to every process, and the parent handles it.

    Call this after polars is imported, because its import undoes it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def kill_descendants() -> None:
    """Kill every descendant of this process. Some ignore SIGTERM: engines fork such workers."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


def process_start(pid: int) -> str:
    """When a process started, as a text to compare; "" if there is none. With the pid it identifies a process.

    The text is the boot id and the clock ticks since boot (proc(5), field 22 of /proc/PID/stat). psutil gives a time
    of day instead, which changes when the clock is set.
    """
    try:
        if not Path("/proc/self/stat").exists():  # not Linux
            return str(psutil.Process(pid).create_time())
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()} {ticks}"
    except (OSError, psutil.NoSuchProcess):
        return ""


def pid_namespace() -> str:
    """The container, by its PID namespace, in which this process's view of process ids holds; "" on the host itself."""
    with contextlib.suppress(OSError):
        number = Path("/proc/self/ns/pid").stat().st_ino
        if number != HOST_NAMESPACE:
            return f"pid:[{number}]"
    return ""


def process_host() -> str:
    """Where the ids of processes are comparable: this host, or a container on it."""
    return f"{socket.gethostname()} {pid_namespace()}".strip()


def _exit_after(wait: Callable[[], object]) -> None:
    """Exit, with all descendants, when `wait` returns. Waits in a thread."""

    def watch() -> None:
        wait()
        kill_descendants()
        os._exit(1)

    threading.Thread(target=watch, name="exit-after", daemon=True).start()
