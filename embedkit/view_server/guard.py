"""What every request must have, before anything of the run is read: the host, the token, the method."""

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedkit.view_server.address import Address

SELECTED = "selected.parquet"
"""The path that gets ids in the body of a POST, since an address has no room for them."""
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address has the token
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'self'",  # a page's own policy cannot say that
}


class Guard:
    """Refuses requests with another host, token or method. It takes the token off the path of the others."""

    def __init__(self, app: ASGIApp, address: Address) -> None:
        self._app = app
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        token, slash, rest = scope["path"].removeprefix("/").partition("/")
        answer = self._refusal(scope, token, rest)
        if answer is None and not slash:
            answer = RedirectResponse(f"/{token}/")
        if answer is not None:
            await answer(scope, receive, send_with_headers)
            return
        await self._app({**scope, "path": f"/{rest}", "raw_path": None}, receive, send_with_headers)

    def _refusal(self, scope: Scope, token: str, rest: str) -> Response | None:
        address = self._address
        if Headers(scope=scope).getlist("host") not in [[host] for host in address.hosts]:
            text = (
                f"This server answers to {address.hosts[0]} and {address.hosts[1]} only. Behind a tunnel, use the same "
                f"port at both ends: ssh -L {address.port}:{address.hosts[0]} HOST"
            )
            return PlainTextResponse(text, 403)
        if not hmac.compare_digest(token.encode("utf-8", "surrogatepass"), address.token.encode()):
            text = "Not found. Every start of `embedkit view` prints a new address; open the last one."
            return PlainTextResponse(text, 404)
        allowed = "POST" if rest == SELECTED else "GET"
        if scope["method"] != allowed:
            return PlainTextResponse("This server only reads.", 405, {"Allow": allowed})
        return None
