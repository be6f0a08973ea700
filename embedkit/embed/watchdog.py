"""The watchdog: a task that makes no progress ends, non-zero, so that a scheduler sees it and it can be started again.

A hung engine may hold the interpreter for ever, so behind the thread that ends the process with a message stands
faulthandler's timer, which needs no interpreter.
"""

import faulthandler
import logging
import os
import threading
import time
from types import TracebackType
from typing import Self

from embedkit.errors import UsageError
from embedkit.storage.processes import kill_descendants

log = logging.getLogger(__name__)

START_SECONDS = 30 * 60.0
"""For an engine to start: files over a slow network, kernels to compile."""
QUIET_SECONDS = 10 * 60.0
"""For a chunk, or twenty times what the plan predicts for one, if that is more."""
GRACE_SECONDS = 30.0
STDERR = 2

OVERRIDE = "EMBEDKIT_WATCHDOG_SECONDS"
"""An environment variable that sets all limits; 0 takes the watchdog away."""


class Watchdog:
    """Ends this process unless it is fed in time. One a process."""

    def __init__(self) -> None:
        self._doing = ""
        self._seconds = 0.0
        self._deadline = float("inf")
        self._changed = threading.Condition()
        self._over = False
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
            self._over = True
            self._changed.notify()
        self._thread.join()

    def feed(self, doing: str, seconds: float) -> None:
        """There was progress; what follows is `doing` and takes at most so many seconds."""
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
            while not self._over:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    self._end()
                self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def _end(self) -> None:
        faulthandler.dump_traceback(file=STDERR)  # where every thread stands
        log.error(
            "no progress for %.0f s, while %s: this task ends, what is durable is kept. If it happens again there, try "
            "another node, or give it longer with %s",
            *(self._seconds, self._doing, OVERRIDE),
        )
        kill_descendants()
        os._exit(1)


def _override() -> float | None:
    """The limit that the environment sets. Raises UsageError if it is no number of seconds."""
    text = os.environ.get(OVERRIDE)
    try:
        seconds = None if text is None else float(text)
    except ValueError:
        seconds = -1.0
    if seconds is not None and not 0 <= seconds < threading.TIMEOUT_MAX:
        raise UsageError(f"{OVERRIDE}={text}: a number of seconds is needed; 0 takes the watchdog away")
    return seconds
