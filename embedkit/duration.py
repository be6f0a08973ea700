"""Durations, for people."""

UNKNOWN = "-"


def duration(seconds: float | None, at_least: bool = False) -> str:
    """Seconds as `12.3 s`, `4.5 min` or `1.2 h`, unknown as `-`; `at_least` puts `>=` before it."""
    if seconds is None:
        return UNKNOWN
    sign = ">=" if at_least else ""
    if seconds < 99.95:
        return f"{sign}{seconds:.1f} s"
    return f"{sign}{seconds / 60:.1f} min" if seconds < 5997 else f"{sign}{seconds / 3600:,.1f} h"
