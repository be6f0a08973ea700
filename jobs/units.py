"""Numbers as people read them, with their units; what is unknown is `-`, never 0."""

from datetime import datetime

UNKNOWN = "-"


def duration(seconds: float | None, at_least: bool = False) -> str:
    """`12.3 s`, `4.5 min`, `1.2 h`; three digits are enough for anyone."""
    if seconds is None:
        return UNKNOWN
    sign = ">=" if at_least else ""
    if seconds < 99.95:
        return f"{sign}{seconds:.1f} s"
    return f"{sign}{seconds / 60:.1f} min" if seconds < 5997 else f"{sign}{seconds / 3600:,.1f} h"


def gibibytes(amount: int | None) -> str:
    """Bytes as GiB, without the unit."""
    return UNKNOWN if amount is None else f"{amount / 2**30:.1f}"


def percent(share: float | None) -> str:
    """A share of 1 as per cent."""
    return UNKNOWN if share is None else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 0) -> str:
    """A number with commas."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def clock(at: float | None, seconds: bool = True) -> str:
    """Local time of this machine."""
    if at is None:
        return UNKNOWN
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def zone(at: float) -> str:
    """The zone of `clock`'s times."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Z (UTC%z)")
