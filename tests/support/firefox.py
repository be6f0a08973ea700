"""Firefox in a virtual window, to test pages, controlled through Marionette, its own remote protocol.

Playwright controls only a Firefox of its own, and Selenium needs a driver that Debian does not have. Firefox has WebGL
only in a window: Xvfb gives it one, and Mesa draws in software. `make browser` installs all of it.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path
from typing import Any

NAMES = ("firefox-esr", "firefox")
PACKAGES = ("firefox-esr", "xvfb", "libegl1", "libgl1", "libgl1-mesa-dri", "libpci3")
PREFERENCES = {
    "marionette.port": 0,  # any free port: Firefox writes it into its profile
    "network.proxy.type": 1,  # a proxy that does not exist: nothing is fetched
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "webgl.force-enabled": True,
}


def program() -> str | None:
    """The path of Firefox under any of its names; None if it is not installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def missing() -> list[str]:
    """What is not installed of Firefox and what it needs to draw."""
    there = {"firefox": program(), "Xvfb": shutil.which("Xvfb"), "libEGL": find_library("EGL")}
    return [name for name, found in (there | {"libGL": find_library("GL")}).items() if not found]


class Tab:
    """A page in Firefox. https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html"""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._received = b""
        self._last = 0
        self._message()  # a greeting
        self.send("WebDriver:NewSession", capabilities={})

    def send(self, command: str, **parameters: Any) -> Any:
        """Send a command of WebDriver and return its result. Raises AssertionError with the browser's message."""
        self._last += 1
        message = json.dumps([0, self._last, command, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _, number, error, result = self._message()
        assert (number, error) == (self._last, None), error
        return result["value"] if isinstance(result, dict) and set(result) == {"value"} else result

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return self.send("WebDriver:ExecuteScript", script=f"return {expression}", args=[], sandbox=None)

    def frame(self, at: int) -> None:
        """Go on in a frame of the page, by its number."""
        self.send("WebDriver:SwitchToFrame", id=None)
        self.send("WebDriver:SwitchToFrame", id=at)

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window, in pixels."""
        move = {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0}
        clicks = [move, *({"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp"))]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": clicks}
        self.send("WebDriver:PerformActions", actions=[mouse])

    def type(self, selector: str, text: str) -> None:
        """Type text into the field that a CSS selector finds."""
        self.send("WebDriver:ElementSendKeys", id=self._find(selector), text=text)

    def until(self, expression: str) -> None:
        """Wait until an expression is true, ten seconds at most."""
        for _ in range(200):
            if self.evaluate(expression):
                return
            time.sleep(0.05)
        raise AssertionError(expression)

    def screenshot(self, selector: str) -> bytes:
        """A picture of what a CSS selector finds, as PNG."""
        element = self._find(selector)
        return b64decode(self.send("WebDriver:TakeScreenshot", id=element, full=False))

    def close(self) -> None:
        self._socket.close()

    def _find(self, selector: str) -> str:
        (element,) = self.send("WebDriver:FindElement", using="css selector", value=selector).values()
        return str(element)

    def _message(self) -> Any:
        while b":" not in self._received:
            self._receive()
        length, _, rest = self._received.partition(b":")
        while len(rest) < int(length):
            self._received = rest
            self._receive()
            rest = self._received
        self._received = rest[int(length) :]
        return json.loads(rest[: int(length)])

    def _receive(self) -> None:
        received = self._socket.recv(1 << 16)
        assert received, "Firefox closed the connection"
        self._received += received


@contextmanager
def opened(page: Path, profile: Path) -> Iterator[Tab]:
    """Open a file in a window of 1300 x 900 pixels. profile: an empty folder for the browser's own files."""
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    command = [program() or "firefox", "--marionette", "--no-remote", "--profile", str(profile)]
    with (profile / "log").open("wb") as log, _screen() as display:
        firefox = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"DISPLAY": display})
        try:
            tab = Tab(_port(profile, firefox))
            tab.send("WebDriver:SetWindowRect", x=0, y=0, width=1300, height=900)
            tab.send("WebDriver:Navigate", url=page.absolute().as_uri())
            yield tab
            tab.close()
        finally:
            firefox.terminate()
            firefox.wait(30)


@contextmanager
def _screen() -> Iterator[str]:
    """A virtual screen; its name for DISPLAY."""
    command = ("Xvfb", "-displayfd", "1", "-screen", "0", "1300x900x24", "-nolisten", "tcp")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as screen:
        try:
            assert screen.stdout is not None
            yield f":{screen.stdout.readline().strip()}"
        finally:
            screen.terminate()


def _port(profile: Path, firefox: "subprocess.Popen[bytes]") -> int:
    found = profile / "MarionetteActivePort"
    for _ in range(600):
        if found.exists() and (port := found.read_text().strip()):
            return int(port)
        assert firefox.poll() is None, (profile / "log").read_text(errors="replace")
        time.sleep(0.1)
    raise AssertionError("Firefox did not start within a minute")
