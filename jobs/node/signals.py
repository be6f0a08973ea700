"""Told to stop: before a time limit or a preemption a task is requeued, and goes on where it is now.

What is in hand is dropped, since everything else is durable already. The telling is watched by a thread of its own,
because the main thread may be deep in an engine's call and Python runs handlers there only between its own steps.
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
from embedkit.storage.processes import kill_descendants
from jobs.slurm.client import state_of

log = logging.getLogger("embedkit")

TOLD = (signal.SIGUSR2, signal.SIGTERM)
STOPPED = 75
"""The exit code of a task that was told to stop: EX_TEMPFAIL of sysexits.h, try again."""
REQUEUE_SECONDS = 60
SETTLE_SECONDS = 1.0
"""Slurm tells all processes of a task one after another, so a child may die of it before its parent hears."""


class SignalWatcher:
    """While in the block, USR2 and SIGTERM end this process."""

    def __init__(self, on_stop: Callable[[signal.Signals], None]) -> None:
        """`on_stop` decides what becomes of the task and notes it; the process ends when it returns."""
        self._on_stop = on_stop
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stopping", daemon=True)

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for told in TOLD:
            signal.signal(told, lambda *_: None)  # the wake-up is the point
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        self._write.close()

    def wait_if_signalled(self) -> None:
        """Returns only if this process is not being ended: else what failed is no failure of the work."""
        if self._told.wait(SETTLE_SECONDS):
            self._thread.join()

    def _watch(self) -> None:
        while data := self._read.recv(1):
            if data[0] in TOLD:
                self._told.set()
                try:
                    self._on_stop(signal.Signals(data[0]))
                finally:
                    kill_descendants()  # an engine's own may ignore SIGTERM
                    os._exit(STOPPED)


def was_cancelled() -> bool:
    """Whether this job is being ended because somebody cancelled it, or because its work is no longer wanted."""
    state, reason = state_of(current_job().name)
    return state in ("CANCELLED", "COMPLETING") and reason != "TimeLimit"


def requeue() -> str | None:
    """Ask Slurm to start this job again later; returns why it refused, None if it agreed."""
    try:
        done = subprocess.run(
            ["scontrol", "requeue", current_job().name], capture_output=True, text=True, timeout=REQUEUE_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if not done.returncode or "pending execution" in done.stderr:  # Slurm did so by itself: its node was lost
        return None
    return done.stderr.strip() or f"scontrol exited {done.returncode}"
