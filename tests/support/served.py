"""The server of `embedkit view` in this process, on a free port, and a client without anything of a browser."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from embedkit.run import RunFolder
from embedkit.view_server import Address, ViewOptions
from embedkit.view_server.serve import started
from tests.support.made_page import made_page

WAITING = 202


@dataclass(frozen=True)
class Answer:
    """What the server sent."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """The body as lines of JSON."""
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass(frozen=True)
class Client:
    """Sends one request at a time."""

    address: Address
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str = "", method: str = "GET", **parameters: Any) -> Answer:
        """Ask for a path after the token. A parameter may be a list."""
        return self.raw(f"/{self.address.token}/{path}?{urlencode(parameters, doseq=True)}", method)

    def post(self, path: str, body: bytes, **parameters: Any) -> Answer:
        """As `get`, with a body."""
        return self.raw(f"/{self.address.token}/{path}?{urlencode(parameters, doseq=True)}", "POST", body=body)

    def raw(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """Send one request as it is written."""
        connection = http.client.HTTPConnection("127.0.0.1", self.address.port, timeout=30)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        found = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def ready(self, path: str, **parameters: Any) -> Answer:
        """As `get`, after the engine has started."""
        for _ in range(600):
            answer = self.get(path, **parameters)
            if answer.status != WAITING:
                return answer
            time.sleep(0.1)
        raise AssertionError(answer.json)


@contextmanager
def served(run: RunFolder, view: str = "combined", **options: Any) -> Iterator[Client]:
    """Serve a run that has a page."""
    with started(run, ViewOptions(view=view, **options)) as (address, engine):
        thread = threading.Thread(target=engine.run)
        thread.start()
        try:
            yield Client(address)
        finally:
            engine.stop()
            thread.join()


def add_page(run: RunFolder) -> RunFolder:
    """Give a run a page of other rows, which is enough where no browser opens it."""
    run.analysis.mkdir()
    made_page(run.analysis, {"made": 3})
    return run
