"""Numbers with units, for people. Unknown is `-`, never 0."""

from datetime import datetime

from embedkit.duration import UNKNOWN


def gibibytes(amount: int | None) -> str:
    """Bytes as GiB, without the unit."""
    return UNKNOWN if amount is None else f"{amount / 2**30:.1f}"


def percent(share: float | None) -> str:
    """A fraction (0 to 1) as a percentage."""
    return UNKNOWN if share is None else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 0) -> str:
    """A number with commas."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def clock(at: float | None) -> str:
    """A Unix time as local time of this machine."""
    if at is None:
        return UNKNOWN
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def zone(at: float) -> str:
    """The time zone that `clock` uses at that time."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Z (UTC%z)")
