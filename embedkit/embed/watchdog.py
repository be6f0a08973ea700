"""The watchdog: ends a task that stopped making progress, with a non-zero exit code, so that it can be started again.

A thread ends the process with a message. A hung engine may hold the interpreter for ever, so faulthandler's timer,
which needs no interpreter, ends the process a little later in any case.
"""

import faulthandler
import logging
import os
import threading
import time
from types import TracebackType
from typing import Self

from embedkit.errors import UsageError
from embedkit.storage import kill_descendants

log = logging.getLogger(__name__)

START_SECONDS = 30 * 60.0
"""Limit for an engine to start: it may read files over a slow network and compile kernels."""
QUIET_SECONDS = 10 * 60.0
"""Smallest limit for a chunk. A shard task computes the limit from the plan (ShardTask._heartbeat)."""
GRACE_SECONDS = 30.0
"""How much later than the thread faulthandler's timer ends the process."""
STDERR = 2

OVERRIDE = "EMBEDKIT_WATCHDOG_SECONDS"
"""Environment variable that sets all limits, in seconds; 0 turns the watchdog off."""


class Watchdog:
    """Ends this process unless a heartbeat comes in time. At most one per process."""

    def __init__(self) -> None:
        self._doing = ""
        self._seconds = 0.0
        self._deadline = float("inf")
        self._changed = threading.Condition()
        self._closed = False
        self._override = _override()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        faulthandler.cancel_dump_traceback_later()
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def heartbeat(self, doing: str, seconds: float) -> None:
        """Report progress. The next step is `doing`, and takes at most this many seconds."""
        seconds = seconds if self._override is None else self._override
        if not seconds:
            return
        with self._changed:
            self._doing, self._seconds = doing, seconds
            self._deadline = time.monotonic() + seconds
            self._changed.notify()
        faulthandler.dump_traceback_later(seconds + min(GRACE_SECONDS, seconds), exit=True, file=STDERR)

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    self._end()
                self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def _end(self) -> None:
        faulthandler.dump_traceback(file=STDERR)  # the stack of every thread
        log.error(
            "no progress for %.0f s, while %s: this task ends; what is durable is kept. If this happens again, try "
            "another node, or allow more seconds with %s",
            *(self._seconds, self._doing, OVERRIDE),
        )
        kill_descendants()
        os._exit(1)


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
