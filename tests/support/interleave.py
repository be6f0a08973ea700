"""Runs several actors in threads, one at a time: which goes on is decided before every step on the file system.

A step is a link, rename or removal of a file, or a look at a file that matters. An actor may also be killed before a
step: it then changes nothing more, as after SIGKILL. fsync does nothing here: it changes no name, and no byte that a
process sees.
"""

import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHANGES = ((os, "link"), (os, "rename"), (os, "replace"), (os, "unlink"))
LOOKS = ((os, "listdir"), (os, "stat"), (io, "open"))


class Killed(BaseException):
    """Ends an actor's thread."""


@dataclass
class Actor:
    """One process of a test. `result` is what its work returned, or the error that ended it."""

    name: str
    work: Callable[[], object]
    killed_at: int | None = None
    steps: int = 0
    result: object = None
    done: bool = False
    _go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _paused: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    thread: threading.Thread | None = None

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self._paused.acquire()

    def step(self) -> None:
        """Let it do its next step."""
        self._go.release()
        self._paused.acquire()

    def before_step(self) -> None:
        if self.killed_at is not None and self.steps >= self.killed_at:
            raise Killed  # cleaning up is a step, too, and does not happen
        self.steps += 1
        self._paused.release()
        self._go.acquire()

    def _run(self) -> None:
        try:
            self.result = self.work()
        except Exception as error:
            self.result = error
        except Killed:
            self.result = Killed()
        self.done = True
        self._paused.release()


@contextmanager
def in_steps(
    actors: Iterable[Actor], monkeypatch: pytest.MonkeyPatch, matters: Callable[[str], bool]
) -> Iterator[None]:
    """Start the actors, each before its first step. `matters` chooses, by path, which looks at files are steps."""
    by_thread: dict[threading.Thread | None, Actor] = {}

    def stepped(function: Callable[..., Any], is_look: bool) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            actor = by_thread.get(threading.current_thread())
            if actor is not None and (not is_look or (args and matters(str(args[0])))):
                actor.before_step()
            return function(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        for module, name in (*CHANGES, *LOOKS):
            patch.setattr(module, name, stepped(getattr(module, name), (module, name) in LOOKS))
        patch.setattr(os, "fsync", lambda fd: None)
        for actor in actors:
            work = actor.work

            def run(actor: Actor = actor, work: Callable[[], object] = work) -> object:
                by_thread[threading.current_thread()] = actor
                actor.before_step()
                return work()

            actor.work = run
            actor.start()
        yield


def run_in_order(actors: Mapping[int, Actor], order: Iterable[tuple[int, int]], after: Callable[[Actor], None]) -> None:
    """Let actors go on for some steps each, in this order, then each to its end. Calls `after` after every step."""
    for number, steps in [*order, *((number, 10**6) for number in actors)]:
        actor = actors[number]
        for _ in range(steps):
            if actor.done:
                break
            actor.step()
            after(actor)
