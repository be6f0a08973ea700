"""Commands that are killed or stopped at a durable step (tests/support/crash/), and the proof that they were."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.conftest import EMBEDKIT, ROOT, embedkit
from tests.support.checkout import SUPPORT, python_path

CRASH = python_path(SUPPORT / "crash")
WORKER_KILLED = "embedkit: a worker process of prepare was killed, perhaps for memory"


def killed(*arguments: object, at: int) -> bool:
    """Run a command that is killed at its K-th durable step. Returns whether it was; else it has succeeded.

    A worker of prepare may be killed instead of the command, which then ends with an error that says so.
    """
    with tempfile.TemporaryDirectory() as folder:
        variables = {"EMBEDKIT_TEST_KILL_AT": str(at), "EMBEDKIT_TEST_SIGNALLED": folder}
        done = embedkit(*arguments, check=False, **CRASH, **variables)
        dead = os.listdir(folder)  # noqa: PTH208
    if not dead:
        assert done.returncode == 0, done.stderr
    elif done.returncode != -signal.SIGKILL:
        assert done.returncode == 1, done.stderr
        assert WORKER_KILLED in done.stderr
    return bool(dead)


def start(*arguments: object, stop_at: int) -> "subprocess.Popen[str]":
    """Start a command each of whose processes stops at that step."""
    return subprocess.Popen(
        [*EMBEDKIT, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | CRASH | {"EMBEDKIT_TEST_STOP_AT": str(stop_at)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def stopped_at(step: int, *arguments: object) -> "Iterator[subprocess.Popen[str]]":
    """A command that has stopped at that step. At the end of the block it is killed if it is still there."""
    process = start(*arguments, stop_at=step)
    try:
        while Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "T":
            if process.poll() is not None:
                raise AssertionError(
                    f"it ended with {process.returncode} and not at {step}: {process.communicate()[1]}"
                )
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def resume(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Continue a stopped command. Returns its exit code and what it printed to stderr."""
    process.send_signal(signal.SIGCONT)
    error = process.communicate(timeout=120)[1]
    return process.returncode, error


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a command that has not ended yet, and wait until it has ended of that."""
    process.kill()
    assert process.wait(timeout=20) == -signal.SIGKILL


def tree(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The process and its descendants."""
    own = psutil.Process(process.pid)
    return [own, *own.children(recursive=True)]
