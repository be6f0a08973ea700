"""Ends a process that has stopped making progress, with a non-zero exit code, so that it can be started again.

A child process counts the seconds (watchdog_process.py). So a suspended job, which does not run, is not ended for it
when it continues. A thread ends this process with a message. If an engine holds the interpreter for ever, no thread
can, and the child does it a little later.
"""

import faulthandler
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from embedkit.embed import watchdog_process
from embedkit.errors import UsageError
from embedkit.storage import kill_descendants

log = logging.getLogger(__name__)

START_SECONDS = 30 * 60.0
"""Limit for an engine to start: it may read files over a slow network and compile kernels."""
QUIET_SECONDS = 10 * 60.0
"""Smallest limit for a chunk. A shard task computes the limit from the plan (ShardTask._heartbeat)."""
GRACE_SECONDS = 30.0
"""How much later than the thread the child ends this process."""
LATE_SECONDS = 5.0
"""How long the thread waits before it reports that the child was killed: perhaps this whole process is ending."""
STDERR = 2

OVERRIDE = "EMBEDKIT_WATCHDOG_SECONDS"
"""Environment variable that sets all limits, in seconds; 0 turns the watchdog off."""


_current: "Watchdog | None" = None


def renew_limit() -> None:
    """Report progress within a step to this process's watchdog, if it has one: the step's limit begins anew."""
    if _current is not None:
        _current.renew()


class Watchdog:
    """Ends this process unless a heartbeat comes in time. At most one per process."""

    def __init__(self) -> None:
        self._doing = ""
        self._seconds = 0.0
        self._override = _override()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        global _current
        if self._override != 0:
            faulthandler.register(watchdog_process.DUMP_SIGNAL, file=STDERR, all_threads=True)
            self._start()
            _current = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _current
        if self._child is None:
            return
        _current = None
        self._stop()
        faulthandler.unregister(watchdog_process.DUMP_SIGNAL)

    def restart(self) -> None:
        """Start the child anew. It then writes to what stderr is now, which may be a different file than before."""
        if self._child is not None:
            self._stop()
            self._start()

    def _start(self) -> None:
        self._closed = False
        self._child = _start_child()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        assert self._child is not None
        assert self._thread is not None
        self._closed = True
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        try:
            self._child.wait(LATE_SECONDS)
        except subprocess.TimeoutExpired:  # somebody stopped it
            self._child.kill()
            self._child.wait()
        self._thread.join()
        self._child.stdout.close()

    def heartbeat(self, doing: str, seconds: float) -> None:
        """Report progress. The next step is `doing`, and takes at most this many seconds in which this process runs."""
        if self._child is None:
            return
        self._doing, self._seconds = doing, seconds if self._override is None else self._override
        self.renew()

    def renew(self) -> None:
        """Let the limit of the present step begin anew."""
        assert self._child is not None
        assert self._child.stdin is not None
        line = json.dumps((self._doing, self._seconds)) + "\n"
        with suppress(OSError):  # the child was killed, which the thread has logged
            os.write(self._child.stdin.fileno(), line.encode())

    def _watch(self) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        if self._child.stdout.read(1):
            self._end()
        time.sleep(0.0 if self._closed else LATE_SECONDS)
        if not self._closed:
            log.warning("the watchdog's process was killed: if this task hangs, nothing ends it")

    def _end(self) -> None:
        faulthandler.dump_traceback(file=STDERR)  # the stack of every thread
        log.error(
            "no progress for %.0f s, while %s: this task ends; what is durable is kept. If this happens again, try "
            "another node, or allow more seconds with %s",
            *(self._seconds, self._doing, OVERRIDE),
        )
        kill_descendants()
        os._exit(1)


def _start_child() -> subprocess.Popen[bytes]:
    """Start the process that counts the seconds. It blocks every signal, and ends with this process."""
    command = [sys.executable, "-I", "-S", watchdog_process.__file__, str(os.getpid()), str(GRACE_SECONDS)]
    # The child inherits this thread's mask: signals to the whole job are for this process to handle.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert child.stdin is not None
    os.set_blocking(child.stdin.fileno(), False)  # if only the child is stopped, a heartbeat must not wait for it
    return child


def _override() -> float | None:
    """The limit set in the environment, None if unset. Raises UsageError if it is not a number of seconds."""
    text = os.environ.get(OVERRIDE)
    try:
        seconds = None if text is None else float(text)
    except ValueError:
        seconds = -1.0
    if seconds is not None and not 0 <= seconds < threading.TIMEOUT_MAX:
        raise UsageError(f"{OVERRIDE}={text}: give a number of seconds; 0 turns the watchdog off")
    return seconds
