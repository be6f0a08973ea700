"""A small finished run, and copies of it to damage."""

from tests.support.small_run import (
    small,
    small_embedded,
    small_embedded_run,
    small_prepared,
    small_run,
    small_sharded,
    small_sharded_run,
)

__all__ = [
    "small",
    "small_embedded",
    "small_embedded_run",
    "small_prepared",
    "small_run",
    "small_sharded",
    "small_sharded_run",
]
