"""The watchdog, in real processes: it ends one that hangs, and not one that was suspended for longer than its limit."""

import logging
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from embedkit.embed.watchdog import OVERRIDE, Watchdog, renew_limit
from tests.support.slurm.processes import is_running

LIMIT = 0.7
HANGS = {
    "hang": lambda: time.sleep(600),
    "hang-in-python": lambda: [None for _ in iter(int, 1)],
    "hang-holding": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),
    "hang-after-restart": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),
}


class Watched:
    """A process of its own session that does some work under the watchdog. Forked, so that it starts at once."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._output = folder / f"{kind}-{time.monotonic_ns()}.log"
        self.second = self._output.with_suffix(".second")
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=(kind,))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        while not self._output.exists() or "begins" not in self._output.read_text():
            time.sleep(0.01)

    def _run(self, kind: str) -> None:
        os.setsid()
        fd = os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True)
        os.environ[OVERRIDE] = str(LIMIT)
        with Watchdog() as watchdog:
            watchdog.heartbeat("embedding ids 0 to 9", 600)
            logging.info("begins")
            if kind == "hang-after-restart":
                os.dup2(os.open(self.second, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
                watchdog.restart()
                watchdog.heartbeat("embedding ids 10 to 19", 600)
            HANGS.get(kind, self._read if kind == "read" else self._work)()
        logging.info("finished")

    def _work(self) -> None:
        while not self._output.with_suffix(".end").exists():
            time.sleep(0.01)

    def _read(self) -> None:
        """Read a file on a slow disk, for longer than the limit."""
        for _ in range(8):
            time.sleep(LIMIT / 3)
            renew_limit()

    def finish(self) -> None:
        """Let the work of a process that does not hang end."""
        self._output.with_suffix(".end").touch()

    def end(self) -> tuple[int | None, str]:
        """Wait for the end. Returns the exit code and the output."""
        self._process.join(30)
        return self._process.exitcode, self._output.read_text()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Watched]]:
    started: list[Watched] = []

    def start_one(kind: str) -> Watched:
        started.append(Watched(kind, tmp_path))
        return started[-1]

    yield start_one
    for watched in started:
        if watched.end()[0] is None:
            os.killpg(watched.pid, signal.SIGKILL)


Start = Callable[[str], Watched]


def test_a_process_that_hangs_ends_whatever_it_hangs_in(start: Start) -> None:
    hanging = {kind: start(kind) for kind in ("hang", "hang-in-python", "hang-holding")}
    for kind, process in hanging.items():
        code, output = process.end()
        assert code == (-signal.SIGKILL if kind == "hang-holding" else 1)
        assert " ERROR no progress for " in output
        assert "while embedding ids 0 to 9" in output
        assert f'File "{__file__}", line ' in output  # where it hung
        assert ("the interpreter is blocked" in output) == (kind == "hang-holding")


def test_a_restarted_watchdog_writes_to_what_stderr_is_then(start: Start) -> None:
    """While the interpreter is held, its child alone writes."""
    process = start("hang-after-restart")
    code, first = process.end()
    second = process.second.read_text()
    assert code == -signal.SIGKILL
    assert "no progress" not in first
    assert "while embedding ids 10 to 19: the interpreter is blocked" in second
    assert f'File "{__file__}", line ' in second


def test_suspended_process_is_not_ended_for_the_pause(start: Start) -> None:
    """The whole job is stopped, or one process alone, longer than the limit and its grace. A hang ends all the same.

    A process that reads on, block by block, for longer than the limit is not ended, either.
    """
    reading = start("read")
    stops = [(start("work"), os.killpg), (start("work"), os.kill), (start("hang"), os.killpg)]
    for _ in range(2):
        for process, send in stops:
            send(process.pid, signal.SIGSTOP)
        time.sleep(2.2 * LIMIT)
        for process, send in stops:
            send(process.pid, signal.SIGCONT)
    for process, _send in stops[:2]:
        process.finish()
    for process, _send in stops[:2]:
        code, output = process.end()
        assert (code, output.count("finished"), output.count("ERROR")) == (0, 1, 0)
    code, output = stops[2][0].end()
    assert (code, output.count("ERROR no progress")) == (1, 1)
    code, output = reading.end()
    assert (code, output.count("finished"), output.count("ERROR")) == (0, 1, 0)


def test_signals_to_the_whole_job_leave_the_watchdog_alone(start: Start) -> None:
    process = start("hang")
    (child,) = psutil.Process(process.pid).children()
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP):
        child.send_signal(number)
    assert child.is_running()
    os.kill(process.pid, signal.SIGKILL)
    assert process.end()[0] == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while is_running(child):  # it ends with its parent; in a container, no process may reap it
        assert time.monotonic() < deadline
        time.sleep(0.01)
