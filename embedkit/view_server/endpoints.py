"""What the server answers: the page, and JSON about rows of its run."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from functools import partial
from threading import Event
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from embedkit.analysis import Merged
from embedkit.documents import EngineRecord, View
from embedkit.errors import EmbedkitError, UsageError
from embedkit.view_server.guard import SELECTED
from embedkit.view_server.meaning import MAX_COUNT, Meaning, MeaningSearch
from embedkit.view_server.row_texts import NearRow, RowTexts, described, near_rows_of, texts_of
from embedkit.view_server.run_page import RunPage
from embedkit.view_server.run_views import RunViews
from embedkit.view_server.selected_rows import MAX_ROWS, as_parquet, selected_ids
from embedkit.view_server.stop import POLL_SECONDS, Stopped
from embedkit.view_server.text_filter import make_filter, matching_rows
from embedkit.view_server.warm_engine import EngineStarting

log = logging.getLogger(__name__)
T = TypeVar("T")
FILTER_SECONDS = 60.0
"""Time of a filter, unless the request has `seconds`. The page then asks whether to go on."""


class Failure(msgspec.Struct, frozen=True):
    """What went wrong, for a person."""

    error: str


class Waiting(msgspec.Struct, frozen=True):
    """What a search waits for. The same request gets the result later."""

    waiting: str


class TextsAnswer(msgspec.Struct, frozen=True):
    """The answer of `texts`."""

    rows: tuple[RowTexts, ...]


class NeighborsAnswer(msgspec.Struct, frozen=True):
    """The answer of `neighbors`: the rows nearest to a row, the nearest first."""

    id: int
    view: View
    neighbors: tuple[NearRow, ...]


class SearchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `search`. `similarity` has a level for each row: 1 is the cosine `low` or less, 255 is `high`.

    text: what was embedded. differences: of the engine from the one that embedded the rows.
    """

    view: View
    text: str
    tokens: int
    engine: EngineRecord
    differences: tuple[str, ...]
    low: float
    high: float
    neighbors: tuple[NearRow, ...]


class Endpoints:
    """The handlers of all paths."""

    def __init__(self, views: RunViews, page: RunPage, search: MeaningSearch) -> None:
        self._views = views
        self._page = page
        self._search = search

    @property
    def app(self) -> Starlette:
        """The application, which expects requests that the guard let through."""
        routes = {
            "/": self.page,
            f"/{self._page.run.two_maps_page.name}": self.two_maps,
            "/texts": self.texts,
            "/neighbors": self.neighbors,
            "/search": self.search,
            "/similarity": self.similarity,
            "/rows": self.rows,
        }
        selected = Route(f"/{SELECTED}", _with_errors(self.selected), methods=["POST"])
        return Starlette(routes=[*(Route(path, _with_errors(handler)) for path, handler in routes.items()), selected])

    async def page(self, request: Request) -> Response:
        """The page itself."""
        size, pieces = await run_in_threadpool(self._page.read)
        return StreamingResponse(pieces, media_type="text/html", headers={"Content-Length": str(size)})

    async def two_maps(self, request: Request) -> Response:
        """The page that has the page twice, side by side."""
        page = await run_in_threadpool(self._page.two_maps)
        if page is None:
            return PlainTextResponse(f"Two maps of this run are not there yet. To make them: {self._page.command}", 404)
        return Response(page, media_type="text/html")

    async def texts(self, request: Request) -> Response:
        """Rows by `id`, which may be repeated, with their whole texts."""
        ids = [_integer("id", text) for text in request.query_params.getlist("id")]

        def read(merged: Merged) -> Response:
            return _json(TextsAnswer(texts_of(self._views, merged, ids)))

        return await run_in_threadpool(lambda: read(self._merged(request)))

    async def neighbors(self, request: Request) -> Response:
        """The `k` rows nearest to the row with an `id`. `snippets=0` leaves out how their texts begin."""
        row_id, count = _number(request, "id"), _count(request, 10)
        has_snippets = request.query_params.get("snippets") != "0"

        def find(stop: Event) -> Response:
            merged = self._merged(request)
            near = near_rows_of(self._views, merged, row_id, count, has_snippets, stop)
            return _json(NeighborsAnswer(row_id, merged.view, near))

        return await _while_connected(request, find)

    async def search(self, request: Request) -> Response:
        """The `k` rows nearest to the text `q` by meaning. 202 while the engine starts."""
        count, has_snippets = _count(request, 50), request.query_params.get("snippets") != "0"

        def find(stop: Event) -> Response:
            merged = self._merged(request)
            found = self._search.find(merged.view, request.query_params.get("q", ""), stop)
            near = described(self._views, merged, found.near, has_snippets)[:count]
            return _json(_search_answer(merged.view, found, near))

        return await _while_connected(request, find)

    async def similarity(self, request: Request) -> Response:
        """How similar each row is to the text `q`: one byte per id of the run, 0 for rows without a text."""

        def find(stop: Event) -> Response:
            merged = self._merged(request)
            found = self._search.find(merged.view, request.query_params.get("q", ""), stop)
            return Response(found.levels.tobytes(), media_type="application/octet-stream")

        return await _while_connected(request, find)

    async def rows(self, request: Request) -> Response:
        """Ids of the rows whose whole texts `have` all words and `lack` all others, or match a `pattern`.

        A line of JSON for each batch of rows, from the id `from` on, for at most `seconds`. It ends when the client
        leaves.
        """
        query = request.query_params
        wanted = make_filter(query.getlist("have"), query.getlist("lack"), query.get("pattern"))
        first = _number(request, "from", 0)
        seconds = float(_number(request, "seconds", int(FILTER_SECONDS)))
        merged = await run_in_threadpool(lambda: self._merged(request))

        return StreamingResponse(
            _as_lines(matching_rows(merged, wanted, first, seconds)), media_type="application/x-ndjson"
        )

    async def selected(self, request: Request) -> Response:
        """A Parquet file of the rows whose ids are the request's body, with their whole texts."""
        ids = selected_ids(await _body(request, 4 * MAX_ROWS))
        pieces = await run_in_threadpool(lambda: as_parquet(self._merged(request), ids))
        return StreamingResponse(pieces, media_type="application/vnd.apache.parquet")

    def _merged(self, request: Request) -> Merged:
        """The view that a request names, or the one that the page opens with."""
        return self._views.merged(request.query_params.get("view", self._page.view))


def _search_answer(view: View, found: Meaning, near: tuple[NearRow, ...]) -> SearchAnswer:
    query = found.query
    return SearchAnswer(
        view=view,
        text=query.text,
        tokens=query.tokens,
        engine=query.engine,
        differences=query.differences,
        low=found.low,
        high=found.high,
        neighbors=near,
    )


def _json(value: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _as_lines(found: Generator[msgspec.Struct]) -> AsyncIterator[bytes]:
    """Lines of JSON. The search ends with the last of them, or when the client has left and this is cancelled."""
    try:
        async for each in iterate_in_threadpool(found):
            yield msgspec.json.encode(each) + b"\n"
    except EmbedkitError as error:
        yield msgspec.json.encode(Failure(str(error))) + b"\n"
    finally:
        found.close()


async def _body(request: Request, most: int) -> bytes:
    """The body of a request, or a little more than `most` bytes of it."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            break
    return body


def _integer(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise UsageError(f"{name}={text}: expected a whole number")
    return int(text)


def _number(request: Request, name: str, default: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    return _integer(name, text or "")


def _count(request: Request, default: int) -> int:
    count = _number(request, "k", default)
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(f"k={count}: expected 1 to {MAX_COUNT}")
    return count


async def _while_connected(request: Request, job: Callable[[Event], T]) -> T:
    """Run a job in a thread. Once the client has left, the job's event is set."""
    stop = Event()

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(POLL_SECONDS)
        stop.set()

    watching = asyncio.create_task(watch())
    try:
        return await run_in_threadpool(partial(job, stop))
    finally:
        stop.set()
        watching.cancel()


def _with_errors(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """A handler that answers with the message of an error, so that the page can show it."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except EngineStarting as starting:
            return _json(Waiting(str(starting)), 202)
        except Stopped:
            return Response(status_code=499)  # nobody reads it
        except UsageError as error:
            return _json(Failure(str(error)), 400)
        except EmbedkitError as error:
            return _json(Failure(str(error)), 500)
        except Exception as error:
            log.exception("%s", request.url.path)
            return _json(Failure(f"{type(error).__name__}: {error}"), 500)

    return answer
