"""The server from its start to its end."""

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType

import uvicorn

from embedkit.analysis.similarity.search import QueryEngine
from embedkit.analysis.similarity.stand_in import may_stand_in
from embedkit.documents import Device, EngineName, View
from embedkit.run import RunFolder
from embedkit.view_server.address import Address, listen
from embedkit.view_server.endpoints import Endpoints
from embedkit.view_server.guard import Guard
from embedkit.view_server.meaning import MeaningSearch
from embedkit.view_server.run_page import RunPage
from embedkit.view_server.run_views import RunViews
from embedkit.view_server.stop import POLL_SECONDS
from embedkit.view_server.warm_engine import WarmEngine

CLOSING_SECONDS = 1
"""How long requests may go on after the server was stopped."""


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """Settings of a server.

    view: the one that the page opens with. port: 0 for any that is free. prefix, engine, device: of queries, as in
    `QueryEngine`.
    """

    view: View
    port: int = 0
    prefix: str | None = None
    engine: EngineName | None = None
    device: Device | None = None


class _StopSignal(BaseException):
    """Ctrl-C or SIGTERM."""


def serve(run: RunFolder, options: ViewOptions, announce: Callable[[Address], None]) -> None:
    """Serve the page of a run until Ctrl-C or SIGTERM. `announce` is called once the server answers.

    Call it in the main thread. Raises as `started`.
    """
    with until_signalled() as on_signal, started(run, options) as (address, engine):
        on_signal.append(engine.stop)
        announce(address)
        engine.run()


@contextmanager
def started(run: RunFolder, options: ViewOptions) -> Iterator[tuple[Address, WarmEngine]]:
    """A server that answers in the background, and the engine, whose `run` somebody must call.

    Raises:
        UsageError: the port cannot be had, or the run does not have the view.
        EmbedkitError: the run is not merged or not analyzed, or a file is damaged.
    """
    views, page = RunViews(run), RunPage(run, options.view)
    merged = views.merged(options.view)
    page.check()
    request = merged.config.request
    of_run = "an engine" if may_stand_in(request) else request.engine
    engine = WarmEngine(
        f"{options.engine or of_run} on {options.device or request.device}",
        partial(QueryEngine, merged, options.prefix, options.engine, options.device),
    )
    listener, address = listen(options.port)
    app = Guard(Endpoints(views, page, MeaningSearch(views, engine)).app, address)
    config = uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # it would have the token
        server_header=False,
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )
    with _running(uvicorn.Server(config), listener):
        try:
            yield address, engine
        finally:
            engine.close()


@contextmanager
def _running(server: uvicorn.Server, listener: socket.socket) -> Iterator[None]:
    """Run the server in a thread of its own, which leaves the main thread to the engine and to signals."""
    thread = threading.Thread(target=server.run, args=([listener],), name="view-server", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(POLL_SECONDS)
        yield
    finally:
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # requests that the end cuts off are no errors
        server.should_exit = True
        thread.join(CLOSING_SECONDS + 2)


@contextmanager
def until_signalled() -> Iterator[list[Callable[[], object]]]:
    """Leave the block at Ctrl-C or SIGTERM. Both are how a person ends the server, so neither is an error.

    Yields a list of what to call then, too: Python loses an exception that a signal raises in a callback or a
    destructor, such as those of an import.
    """
    on_signal: list[Callable[[], object]] = []

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # while the server and the engine close
        for call in on_signal:
            call()
        raise _StopSignal

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield on_signal
    except _StopSignal:
        pass
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
