"""Processes: children that end with their parent, even one killed with SIGKILL, and how to identify a process."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import uuid
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
    """When a process started, as a text to compare; "" if it is not known. With the pid it identifies a process.

    The text is the boot id and the clock ticks since boot (proc(5), field 22 of /proc/PID/stat). psutil gives a time
    of day instead, which changes when the clock is set.
    """
    try:
        if sys.platform != "linux":
            return str(psutil.Process(pid).create_time())
        return f"{boot_id()} {_stat(pid)[19]}"
    except (OSError, IndexError, psutil.Error):
        return ""


def _stat(pid: int) -> list[str]:
    """What /proc/PID/stat has after the name of the process, from its state on; [] if it is not known.

    /proc may be that of a different PID namespace, as in `unshare --pid` alone; /proc/self is right all the same.
    """
    with contextlib.suppress(OSError):
        if pid != os.getpid() and Path("/proc/self").readlink().name != str(os.getpid()):
            return []
        name = "self" if pid == os.getpid() else str(pid)
        return Path(f"/proc/{name}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return []


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and waits for its parent. Its first thread may have ended before the others."""
    stat = _stat(pid)
    return len(stat) > 17 and stat[0] in "ZX" and int(stat[17]) <= 1


def has_ended(pid: int, started: str) -> bool | None:
    """Whether the process with this pid and start has ended; None if it cannot be known.

    Only for a process of this boot and of this PID namespace. kill(2) answers about processes of all users, also where
    /proc hides them (hidepid). A pid that exists may be that of a later process, or of an ended one whose parent has
    not asked for it yet, and only /proc shows that.
    """
    if pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it exists and belongs to a different user
    if _is_zombie(pid):
        return True
    now = process_start(pid)
    return now != started if now and started else None


def boot_id() -> str:
    """The id of this boot of this machine; "" if it is not known. Without one (macOS): the id of its network card."""
    if sys.platform != "linux":
        return f"{uuid.getnode():x}"
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return ""


def process_namespaces() -> str:
    """The namespaces in which ids and start times of processes are comparable; "" if they are not known.

    Their numbers are unique among the namespaces that exist during one boot.
    """
    if sys.platform != "linux":
        return "none"
    try:
        pids = Path("/proc/self/ns/pid").stat().st_ino
        times = Path("/proc/self/ns/time")  # from Linux 5.6 on
        return f"pid:[{pids}]" + (f" time:[{times.stat().st_ino}]" if times.exists() else "")
    except OSError:
        return ""


def pid_namespace() -> str:
    """The container, by its PID namespace, in which this process's view of process ids holds; "" on the host itself."""
    with contextlib.suppress(OSError):
        number = Path("/proc/self/ns/pid").stat().st_ino
        if number != HOST_NAMESPACE:
            return f"pid:[{number}]"
    return ""


def process_host() -> str:
    """This host, or the container on it, for messages. Two hosts may have one name, so it proves nothing."""
    return f"{socket.gethostname()} {pid_namespace()}".strip()


def _exit_after(wait: Callable[[], object]) -> None:
    """Exit, with all descendants, when `wait` returns. Waits in a thread."""

    def watch() -> None:
        wait()
        kill_descendants()
        os._exit(1)

    threading.Thread(target=watch, name="exit-after", daemon=True).start()
