"""How long a task still takes, from when its progress came. The one estimate of all lines of progress.

Nothing is said before the first tenth is done. From then on it is right within a factor of two if the work per unit
does not change by more than two between what was done last and what is left. So a task counts units of equal work, such
as pairs and not rows (`as_rows`). Left out of the pace are:

- what came before the first progress: a start, the compilation of a kernel, k-means;
- the first half of what is done, and of the time it took: a slow beginning is forgotten, and so is what a resumed task
  finds done. But the last 14 reports always count: of workers that run at the same time, one alone says little;
- of the slowest eighth of the rest what is more than twice the mean of the others: a pause is not for all that is left.

A change that comes later, such as a slow disk or a pause, nobody can foresee.
"""

from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise

KNOWN_SHARE = 0.1
"""Share of the work after which there is an estimate."""
PIECES = 8
"""Pieces of equal work whose times are compared."""
SLOWEST = 2.0
"""The slowest piece counts as at most so many times the mean of the others."""
LEAST_REPORTS = 14
"""Reports that are considered, at least, if there are as many."""
MOST_REPORTS = 4096
"""Reports that are kept. Of more, every second one is forgotten."""


class ProgressClock:
    """When how much of a task was done. Times are seconds of any clock."""

    def __init__(self, total: float, done: float = 0) -> None:
        """total: the work, in any unit. done: what was done before, whose time is unknown."""
        self._total = total
        self._known_from = done + KNOWN_SHARE * (total - done)
        self._done = done
        self._times: list[float] = []
        self._amounts: list[float] = []

    def report(self, now: float, done: float) -> None:
        """Record that so much is done in all. Without progress nothing changes."""
        if done <= self._done:
            return
        self._done = done
        self._times.append(now)
        self._amounts.append(done)
        if len(self._times) > MOST_REPORTS:
            self._times, self._amounts = self._times[::2], self._amounts[::2]

    def rate(self) -> float | None:
        """Work per second of late; None before it is known."""
        pace = self._pace()
        return 1 / pace if pace else None

    def seconds_left(self, now: float) -> float | None:
        """Seconds until all is done; None before it is known. 0 if it takes longer than expected."""
        if self._done >= self._total:
            return 0.0
        pace = self._pace()
        return None if pace is None else max((self._total - self._done) * pace - (now - self._times[-1]), 0.0)

    def _pace(self) -> float | None:
        """Seconds per unit of work of late; None before it is known."""
        if len(self._times) < 2 or self._done < self._known_from:
            return None
        start = self._window_start()
        amounts = [start + (self._done - start) * i / PIECES for i in range(PIECES + 1)]
        borders = [_between(self._amounts, self._times, amount) for amount in amounts]
        *others, slowest = sorted(end - begin for begin, end in pairwise(borders))
        seconds = sum(others) + min(slowest, SLOWEST * sum(others) / len(others))
        return seconds / (self._done - start)

    def _window_start(self) -> float:
        """What was done when the time began that the pace is taken from."""
        half_work = (self._amounts[0] + self._done) / 2
        half_time = _between(self._times, self._amounts, (self._times[0] + self._times[-1]) / 2)
        return min(max(half_work, half_time), self._amounts[-min(len(self._amounts), LEAST_REPORTS)])


def _between(xs: list[float], ys: list[float], x: float) -> float:
    """The y of an x in [xs[0], xs[-1]], between two points in proportion. xs ascend."""
    at = min(max(bisect_left(xs, x), 1), len(xs) - 1)
    width = xs[at] - xs[at - 1]
    return ys[at - 1] + (ys[at] - ys[at - 1]) * ((x - xs[at - 1]) / width if width else 1.0)


def as_rows(rows: int, work: float, progress: Callable[[int], object]) -> Callable[[float], None]:
    """Report work of any unit as rows.

    Args:
        rows: of the task.
        work: of the whole task.
        progress: gets the number of further rows; all of them once the whole work is done.

    Returns a function that takes the further work that was done.
    """
    done = reported = 0.0

    def add(amount: float) -> None:
        nonlocal done, reported
        done += amount
        now = rows if done >= work else int(rows * done / work)
        progress(int(now - reported))
        reported = now

    return add
