"""Long reads that end when nobody waits for them any more."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Lock
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.1


class Stopped(Exception):
    """The client has left, so the result is not needed."""


def until(stop: Event, items: Iterable[T]) -> Iterator[T]:
    """Yield the items. Raises Stopped once `stop` is set."""
    for item in items:
        if stop.is_set():
            raise Stopped
        yield item


@contextmanager
def held(lock: Lock, stop: Event) -> Iterator[None]:
    """Hold a lock. Raises Stopped if `stop` is set while this waits for it."""
    while not lock.acquire(timeout=POLL_SECONDS):
        if stop.is_set():
            raise Stopped
    try:
        yield
    finally:
        lock.release()
