"""Sums, shares and maxima over numbers of which some are unknown (None)."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from jobs.report.schema import AttemptReport

Number = TypeVar("Number", int, float)


def total(values: Iterable[float | None]) -> float | None:
    """The sum of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def ratio(part: float | None, whole: float | None) -> float | None:
    """`part` divided by `whole`; None if one is unknown or the whole is zero."""
    return None if part is None or whole is None or whole < 1e-9 else part / whole


def largest(values: Iterable[Number | None]) -> Number | None:
    """The largest of the values that are known; None if none is."""
    return max((value for value in values if value is not None), default=None)


def cpus_used(attempts: Sequence[AttemptReport]) -> float | None:
    """CPUs busy on average, over the attempts for which that is known."""
    known = [(a.cpu_seconds, a.wall_seconds) for a in attempts if a.cpu_seconds is not None and a.wall_seconds]
    return ratio(total(cpu for cpu, _ in known), total(wall for _, wall in known))
