"""The run's engine, started at the first query and kept warm.

It runs in the main thread, as in every other command: vLLM starts inside this process and expects that. The server's
threads hand it their queries.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Lock

from embedkit.analysis.similarity.search import Query, QueryEngine
from embedkit.errors import EmbedkitError


class EngineStarting(Exception):
    """The engine is not ready yet. The message says what is being waited for."""


class WarmEngine:
    """Embeds queries one by one."""

    def __init__(self, name: str, make: Callable[[], QueryEngine]) -> None:
        """name: engine and device, for the person who waits. make: checks the model and loads the tokenizer."""
        self._name = name
        self._make = make
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = Lock()
        self._engine: QueryEngine | None = None
        self._began: float | None = None
        self._failure: Exception | None = None

    def embed(self, text: str) -> Query:
        """Embed a query.

        Raises:
            EngineStarting: the engine is starting; the first query starts it.
            EmbedkitError: it could not be started, or the query cannot be embedded. A later query tries again.
        """
        with self._lock:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._engine is None:
                if self._began is None:
                    self._began = time.monotonic()
                    self._jobs.put(self._start)
                raise EngineStarting(f"{self._name} is starting ({time.monotonic() - self._began:.0f} s so far)")
            engine = self._engine
        waiting: Future[Query] = Future()
        self._jobs.put(partial(_answer, waiting, engine, text))
        return waiting.result()

    def run(self) -> None:
        """Do what queries need, in this thread, until `stop` or an exception such as that of a signal."""
        while (job := self._jobs.get()) is not None:
            job()

    def stop(self) -> None:
        """End `run`."""
        self._jobs.put(None)

    def close(self) -> None:
        """Free the engine."""
        if self._engine is not None:
            self._engine.close()

    def _start(self) -> None:
        engine = None
        try:
            engine = self._make()
            engine.start()
        except Exception as error:
            failure = error if isinstance(error, EmbedkitError) else EmbedkitError(f"{self._name}: {error}")
            with self._lock:
                self._failure, self._began = failure, None
            return
        with self._lock:
            self._engine = engine


def _answer(waiting: "Future[Query]", engine: QueryEngine, text: str) -> None:
    try:
        waiting.set_result(engine.embed(text))
    except Exception as error:
        waiting.set_exception(error)
