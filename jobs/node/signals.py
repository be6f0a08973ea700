"""Signals that end a job: before a time limit or a preemption the job is requeued, and continues where it was.

The work in hand is dropped, since everything else is durable already. A thread of its own waits for the signals: the
main thread may be inside a call of the engine, and Python runs handlers in the main thread only between its own steps.
"""

import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from embedkit.job import current_job
from embedkit.storage import kill_descendants
from jobs.node.shell_signals import receive_signals
from jobs.slurm import start_command, state_of

log = logging.getLogger("embedkit")

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
"""SIGUSR2 is the warning that a profile requests from Slurm; SIGTERM comes with scancel and preemption."""
STOPPED = 75
"""The exit code of a job that a signal stopped: EX_TEMPFAIL of sysexits.h, try again."""
REQUEUE_SECONDS = 60
"""How long scontrol may take."""
WAIT_SECONDS = 1.0
"""Slurm signals the processes of a task one after another, so a child may die of a signal before its parent gets it."""


class SignalWatcher:
    """A context in which SIGUSR2 and SIGTERM end this process."""

    def __init__(self, on_stop: Callable[[signal.Signals], None]) -> None:
        """`on_stop` decides what happens to the job and records it. The process ends when it returns."""
        self._on_stop = on_stop
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._received = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)  # a handler must exist for Python to write to the wake-up fd
        self._thread.start()
        receive_signals(SIGNALS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        self._write.close()

    def wait_if_signalled(self) -> None:
        """Return only if no signal is ending this process. If one is, the error at hand is a result of that signal."""
        if self._received.wait(WAIT_SECONDS):
            self._thread.join()

    def _watch(self) -> None:
        while data := self._read.recv(1):
            if data[0] in SIGNALS:
                self._received.set()
                try:
                    self._on_stop(signal.Signals(data[0]))
                finally:
                    kill_descendants()  # an engine's own may ignore SIGTERM
                    os._exit(STOPPED)


def was_cancelled() -> bool:
    """Whether this job is being ended by a person, or because its work is no longer wanted."""
    state, reason = state_of(current_job().name)
    return state in ("CANCELLED", "COMPLETING") and reason != "TimeLimit"


def requeue() -> str | None:
    """Request that Slurm runs this job again later. Returns why Slurm refused, or None if it agreed."""
    try:
        done = start_command(("scontrol", "requeue", current_job().name), REQUEUE_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if not done.returncode or "pending execution" in done.stderr:  # Slurm did so by itself: its node was lost
        return None
    return done.stderr.strip() or f"scontrol exited {done.returncode}"
