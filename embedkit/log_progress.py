"""Progress for a log file: one line every half minute, however often progress is added."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

LINE_SECONDS = 30.0

Advance = Callable[[int], object]
"""Takes the number of further rows that are done."""
Steps = Callable[[str, int], AbstractContextManager[Advance]]
"""Shows the progress of a step, by its name and number of rows."""


def no_progress(what: str, rows: int) -> AbstractContextManager[Advance]:
    """Show nothing."""
    return nullcontext(lambda rows: None)


@contextmanager
def logged_step(log: logging.Logger, steps: Steps, what: str, rows: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of a step, and log it."""
    logged = LogProgress(log, what, rows, "rows")
    with steps(what, rows) as show:

        def advance(count: int) -> None:
            show(count)
            logged.add(count)

        yield advance


class LogProgress:
    """Logs the first progress at once, then one line every LINE_SECONDS, with the rate and the time left."""

    def __init__(self, log: logging.Logger, what: str, total: int, unit: str) -> None:
        self._log = log
        self._what = what
        self._total = total
        self._unit = unit
        self._began = time.monotonic()
        self._last = self._began - LINE_SECONDS
        self._done = 0

    def add(self, amount: int) -> None:
        """Add to the amount done."""
        self._done += amount
        now = time.monotonic()
        if now - self._last < LINE_SECONDS and self._done < self._total:
            return
        self._last = now
        rate = self._done / max(now - self._began, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        self._log.info(
            "%s: %d of %d %s, %.0f a second, %.0f s left", self._what, self._done, self._total, self._unit, rate, left
        )
