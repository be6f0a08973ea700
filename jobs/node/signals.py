"""Signals that end a job: before a time limit or a preemption the job is requeued, and continues where it was.

A warning may give the work in hand some time to end. Otherwise it is dropped, since everything else is durable already.
A thread of its own waits for the signals: the main thread may be inside a call of the engine, and Python runs handlers
in the main thread only between its own steps.
"""

import logging
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from embedkit.job import current_job
from embedkit.storage import kill_descendants
from jobs.node.shell_signals import receive_signals
from jobs.slurm import start_command

log = logging.getLogger("embedkit")

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
"""SIGUSR2 is the warning that a profile requests from Slurm; SIGTERM comes with scancel and preemption."""
STOPPED = 75
"""The exit code of a job that a signal stopped: EX_TEMPFAIL of sysexits.h, try again."""
REQUEUE_SECONDS = 60
"""How long scontrol may take."""
WAIT_SECONDS = 1.0
"""Slurm signals the processes of a task one after another, so a child may die of a signal before its parent gets it."""


TICK_SECONDS = 5.0
"""How often the thread looks at the clock while the work in hand may end. A longer tick is a pause of the job."""
AT_END = 0
"""What is sent to the thread instead of a signal's number when the work in hand has ended."""


class SignalWatcher:
    """A context in which SIGUSR2 and SIGTERM end this process."""

    def __init__(
        self,
        on_stop: Callable[[signal.Signals], None],
        on_warning: Callable[[signal.Signals], float] = lambda _: 0.0,
    ) -> None:
        """The process ends when `on_stop` returns.

        Args:
            on_stop: decides what happens to the job and records it.
            on_warning: called for the first SIGUSR2. Returns how many seconds the work in hand gets to end, which calls
                `stop` then. 0 stops at once, and so does any further signal.
        """
        self._on_stop = on_stop
        self._on_warning = on_warning
        self._seconds: float | None = None
        """Seconds that the work in hand still has; None before a warning."""
        self.is_time_over = False
        """Whether the work in hand has used up its seconds after a warning."""
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

    def stop(self) -> None:
        """End this process after a warning, because the work in hand has ended. Does not return."""
        self._write.send(bytes([AT_END]))
        self._thread.join()

    def _watch(self) -> None:
        while (number := self._next()) is not None:
            if number == signal.SIGUSR2 and self._seconds is None:
                began = time.monotonic()
                try:
                    self._seconds = self._on_warning(signal.SIGUSR2)
                except Exception:  # this thread must live on, to stop and requeue the job
                    log.exception("USR2: how much time is left is not known")
                    self._seconds = 0.0
                if self._seconds > 0:
                    self._seconds -= time.monotonic() - began
                    continue
            if number in (*SIGNALS, AT_END):
                self._end(signal.Signals(number or signal.SIGUSR2))

    def _next(self) -> int | None:
        """The next signal, AT_END when the work in hand has ended or has no time left, None when the context is left.

        Seconds in which the job was suspended do not count: Slurm adds them to its time limit.
        """
        while self._seconds is None or self._seconds > 0:
            last, tick = time.monotonic(), TICK_SECONDS if self._seconds is None else min(self._seconds, TICK_SECONDS)
            is_ready = bool(select.select([self._read], [], [], tick)[0])
            if self._seconds is not None:
                self._seconds -= min(time.monotonic() - last, 2 * TICK_SECONDS)
            if is_ready:
                data = self._read.recv(1)
                return data[0] if data else None
        self.is_time_over = True
        return AT_END

    def _end(self, received: signal.Signals) -> None:
        self._received.set()
        try:
            self._on_stop(received)
        finally:
            kill_descendants()  # an engine's own may ignore SIGTERM
            os._exit(STOPPED)


def requeue() -> str | None:
    """Request that Slurm runs this job again later. Returns why Slurm refused, or None if it agreed."""
    command = ["scontrol", "requeue", current_job().name]
    began = time.monotonic()
    try:
        try:
            done = start_command(command, REQUEUE_SECONDS)
        except subprocess.TimeoutExpired:
            if time.monotonic() - began < REQUEUE_SECONDS + TICK_SECONDS:
                raise
            done = start_command(command, REQUEUE_SECONDS)  # it was suspended
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if not done.returncode or "pending execution" in done.stderr:  # Slurm did so by itself: its node was lost
        return None
    return done.stderr.strip() or f"scontrol exited {done.returncode}"
