"""Progress for a log file: one line every half minute, however often progress is added."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from embedkit.duration import duration
from embedkit.progress_clock import ProgressClock

LINE_SECONDS = 30.0
FEW = 0.5
"""A smaller rate would be 0 a second, so it is left out."""

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
    """Logs the first progress at once, then one line every LINE_SECONDS, with the rate and the time left once known.

    Units must take equally long: see progress_clock.py. If they do not, `work` is all the work in units that do, and
    `add` gets the part of it. Where nobody knows the work, `is_even` is False, and no line has a time.
    """

    def __init__(
        self, log: logging.Logger, what: str, total: int, unit: str, work: float | None = None, is_even: bool = True
    ) -> None:
        self._log = log
        self._what = what
        self._total = total
        self._unit = unit
        self._is_even = is_even
        self._began = time.monotonic()
        self._last = self._began - LINE_SECONDS
        self._done = 0
        self._work = total if work is None else work
        self._work_done = 0.0
        self._clock = ProgressClock(self._work)

    def add(self, amount: int, work: float | None = None) -> None:
        """Add to the amount done. work: of this amount, if it is counted."""
        self._done += amount
        self._work_done += amount if work is None else work
        now = time.monotonic()
        self._clock.report(now, self._work_done)
        if now - self._last < LINE_SECONDS and self._done < self._total:
            return
        self._last = now
        self._log.info("%s: %d of %d %s%s", self._what, self._done, self._total, self._unit, self._pace(now))

    def _pace(self, now: float) -> str:
        """What a line says about time: at the end how long it took."""
        if self._done >= self._total:
            return f" in {duration(now - self._began)}"
        left, rate = self._clock.seconds_left(now), self._clock.rate()
        if left is None or rate is None or not self._is_even:
            return ""
        rate *= self._total / self._work
        return f", {rate:,.0f} a second, {duration(left)} left" if rate >= FEW else f", {duration(left)} left"
