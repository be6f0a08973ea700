"""How a process is identified, whether it has ended, and which processes end with it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from embedkit.storage import processes
from embedkit.storage.processes import (
    boot_id,
    has_ended,
    pid_namespace,
    process_host,
    process_namespaces,
    process_start,
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_start_is_the_boot_and_its_clock_ticks(child: subprocess.Popen[bytes]) -> None:
    """proc(5): field 22 of /proc/PID/stat; psutil computes the time of day from it."""
    for pid in (child.pid, os.getpid()):
        boot, ticks = process_start(pid).split()
        assert boot == boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        since = int(ticks) / os.sysconf("SC_CLK_TCK") + psutil.boot_time()
        assert abs(since - psutil.Process(pid).create_time()) < 2
    assert process_start(2**22 + 1) == ""


def test_a_running_process_has_not_ended(child: subprocess.Popen[bytes]) -> None:
    started = process_start(child.pid)
    assert has_ended(child.pid, started) is False
    assert has_ended(child.pid, "another start") is True  # a later process has its pid
    assert has_ended(child.pid, "") is None
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert has_ended(child.pid, started) is True  # its parent has not asked for it
    assert child.wait() == -signal.SIGKILL
    assert has_ended(child.pid, started) is True
    assert [has_ended(pid, "x") for pid in (0, -1)] == [None, None]


def test_a_process_of_another_user_that_proc_hides_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(processes, "_stat", lambda pid: [])
    assert has_ended(7, "x") is None


STAT = ["Z", *["0"] * 16, "1", "0", "55"]


@pytest.mark.parametrize(
    ("stat", "is_zombie"),
    [
        (STAT, True),
        (STAT[:18], True),
        (["X", *STAT[1:]], True),
        (["S", *STAT[1:]], False),
        ([*STAT[:17], "2", *STAT[18:]], False),
        (STAT[:17], False),
        ([], False),
    ],
)
def test_a_zombie_has_no_other_thread(stat: list[str], is_zombie: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_stat", lambda pid: stat)
    assert processes._is_zombie(7) == is_zombie


def test_facts_that_the_system_does_not_give_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", fail)
    monkeypatch.setattr(Path, "stat", fail)
    assert (boot_id(), process_namespaces(), pid_namespace(), process_start(os.getpid())) == ("", "", "", "")


def test_a_system_without_proc_has_its_own_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert process_namespaces() == "none"
    assert re.fullmatch(r"[0-9a-f]+", boot_id())
    assert process_start(os.getpid()) == str(psutil.Process().create_time())
    assert process_start(2**22 + 1) == ""


def test_namespaces_are_numbers_of_this_boot() -> None:
    pids = Path("/proc/self/ns/pid").stat().st_ino
    assert process_namespaces().split()[0] == f"pid:[{pids}]"
    times = Path("/proc/self/ns/time")
    if times.exists():
        assert process_namespaces().split()[1] == f"time:[{times.stat().st_ino}]"


@pytest.mark.parametrize(("number", "container"), [(0xEFFFFFFC, ""), (4026532000, "pid:[4026532000]")])
def test_a_container_has_a_pid_namespace_of_its_own(
    number: int, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stat:
        st_ino = number

    monkeypatch.setattr(Path, "stat", lambda path: Stat)
    monkeypatch.setattr(processes.socket, "gethostname", lambda: "n1")
    assert pid_namespace() == container
    assert process_host() == f"n1 {container}".strip()


PARENT = """
import os, sys, subprocess, threading
from embedkit.storage import processes
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
{}
threading.Event().wait(60)
"""


def run(text: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    """Start a process with a child; returns both."""
    process = subprocess.Popen([sys.executable, "-c", PARENT.format(text)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


def is_running(process: psutil.Process) -> bool:
    """Whether it still runs some moments after it was killed."""
    for _ in range(500):
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        time.sleep(0.01)
    return True


def test_a_process_ends_with_another_and_takes_its_children(child: subprocess.Popen[bytes]) -> None:
    process, grandchild = run(f"processes.exit_with_process({child.pid}); print('watches', flush=True)")
    assert process.stdout is not None
    assert process.stdout.readline() == "watches\n"
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert process.wait(30) == 1
    assert not is_running(grandchild)


def test_a_process_that_is_gone_already_ends_the_other_at_once(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    assert child.wait() == -signal.SIGKILL
    process, grandchild = run(f"processes.exit_with_process({child.pid})")
    try:
        assert process.wait(30) == 1
    finally:
        grandchild.kill()


def test_only_descendants_are_killed(child: subprocess.Popen[bytes]) -> None:
    process, grandchild = run("processes.kill_descendants(); print('killed', flush=True)")
    assert process.stdout is not None
    assert process.stdout.readline() == "killed\n"
    assert not is_running(grandchild)
    assert process.poll() is None
    assert child.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_interrupts_are_left_to_the_parent() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        processes.ignore_interrupts()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_a_parent_of_multiprocessing_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[object] = []
    monkeypatch.setattr(processes, "_exit_after", watched.append)
    processes.exit_with_parent()
    assert watched == []

    class Parent:
        def join(self) -> None: ...

    parent = Parent()
    monkeypatch.setattr(processes.multiprocessing, "parent_process", lambda: parent)
    processes.exit_with_parent()
    assert watched == [parent.join]
