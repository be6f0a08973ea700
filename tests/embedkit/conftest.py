"""A small finished run, and copies of it to damage; and a browser."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import browser
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
    "chromium",
    "small",
    "small_embedded",
    "small_embedded_run",
    "small_prepared",
    "small_run",
    "small_sharded",
    "small_sharded_run",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A Playwright browser. A thread has one at a time, so it ends with the module."""
    with browser.chromium() as found:
        yield found
