"""Starts commands through a fork server, and waits for them."""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Any

from tests.support.checkout import python_path
from tests.support.forked.request import Request, current_umask, reads_at_start

ROOT = Path(__file__).parents[3]
SUPPORT = ROOT / "tests" / "support"
POLL_SECONDS = 0.004
PATCHES = ("crash", "links", "misbehave", "quota")
SITES = {str(SUPPORT / name): str(SUPPORT / name / "sitecustomize.py") for name in PATCHES}
"""Folders for PYTHONPATH whose sitecustomize.py does the same after the imports of embedkit as before them."""
ENVIRONMENT = os.environ | python_path()
"""As it is when the tests begin: that of the shared server."""


class ForkedProcess:
    """A process that a fork server started: pid, poll and wait as of subprocess.Popen."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = int(_line(connection))
        self.returncode: int | None = None
        connection.setblocking(False)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            with suppress(BlockingIOError):
                line = self._connection.recv(64)
                self.returncode = int(line) if line else -signal.SIGKILL  # the server died, with all it started
                self._connection.close()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"forked process {self.pid}", timeout)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _line(connection: socket.socket) -> bytes:
    """Read one line and not a byte more: the exit code may have come, too."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise RuntimeError("the fork server died")
        line += byte
    return line


def run_module(
    module: str,
    arguments: Sequence[object],
    environment: Mapping[str, str],
    timeout: float,
    new_interpreter: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m module arguments` in the checkout, as subprocess.run does with captured output.

    It is forked from the server that all tests of this process share; with `new_interpreter`, and if a new interpreter
    would read something else at its start, it is not.
    """
    calls = _calls(environment)
    if new_interpreter or calls is None:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=timeout)
    return shared_server().run(module, arguments, environment, timeout, calls)


def start_module(
    module: str, arguments: Sequence[object], environment: Mapping[str, str], output: Path
) -> "ForkedProcess | subprocess.Popen[bytes]":
    """Start `python -m module arguments` in the checkout, as `run_module` runs it. Its output is added to a file."""
    calls = _calls(environment)
    with output.open("ab") as file:
        if calls is not None:
            return shared_server().start(module, arguments, environment, file.fileno(), file.fileno(), calls)
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)


def _calls(environment: Mapping[str, str]) -> list[list[str]] | None:
    """What a forked process with this environment calls first; None if it needs a new interpreter."""
    site = _site(environment)
    plain = {name: value for name, value in environment.items() if name != "PYTHONPATH" or site is None}
    if not shared_server().starts_alike(plain):
        return None
    return [] if site is None else [["runpy:run_path", site]]


_start = Lock()


def shared_server() -> "ForkServer":
    """The server of this process. It ends with it."""
    with _start:  # tests run commands in threads
        return _server()


@cache
def _server() -> "ForkServer":
    return ForkServer(ENVIRONMENT)


def _site(environment: Mapping[str, str]) -> str | None:
    """The sitecustomize.py on PYTHONPATH if nothing else is there and a forked process can run it."""
    path = environment.get("PYTHONPATH")
    others = [folder for folder in (path or "").split(os.pathsep) if folder not in ("", str(ROOT))]
    return SITES.get(others[0]) if len(others) == 1 and path != ENVIRONMENT.get("PYTHONPATH") else None


class ForkServer:
    """A fork server, started with an environment. It ends with this object or this process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._at_start = reads_at_start(environment)
        with theirs, TemporaryFile() as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forked.server", str(theirs.fileno())],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            if self._socket.recv(16) != b"ready":
                log.seek(0)
                raise RuntimeError(f"the fork server did not start: {log.read().decode(errors='replace')}")

    def close(self) -> None:
        """End the server and all that it started."""
        self._socket.close()
        self._process.wait(30)

    def starts_alike(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork reads at its start what a new interpreter would read with this environment."""
        return reads_at_start(environment) == self._at_start

    def start(
        self,
        module: str,
        arguments: Sequence[object],
        environment: Mapping[str, str],
        stdout: int,
        stderr: int,
        calls: Sequence[Sequence[Any]] = (),
    ) -> ForkedProcess:
        """Start `python -m module arguments`, in a session of its own.

        Args:
            module: name of the module.
            arguments: its arguments.
            environment: all its variables.
            stdout: file descriptor of its output.
            stderr: file descriptor of its errors.
            calls: made in the process before the command (request.py).
        """
        request = Request(module, [*map(str, arguments)], dict(environment), current_umask(), [*map(list, calls)])
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._socket, [b"."], [theirs.fileno(), stdout, stderr])
        ours.sendall(request.line())
        return ForkedProcess(ours)

    def run(
        self,
        module: str,
        arguments: Sequence[object],
        environment: Mapping[str, str],
        timeout: float,
        calls: Sequence[Sequence[Any]] = (),
    ) -> "subprocess.CompletedProcess[str]":
        """Run `python -m module arguments` to its end, as subprocess.run does with captured output."""
        pipes = os.pipe(), os.pipe()
        try:
            process = self.start(module, arguments, environment, pipes[0][1], pipes[1][1], calls)
        finally:
            for _, write_end in pipes:
                os.close(write_end)
        try:
            stdout, stderr = _read_to_end([read_end for read_end, _ in pipes], timeout)
            code = process.wait(timeout)
        except BaseException:
            _kill_session(process.pid)
            raise
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.CompletedProcess(command, code, _text(stdout), _text(stderr))


def _read_to_end(ends: Sequence[int], timeout: float) -> list[bytes]:
    """Read pipes until no process holds their other ends, and close them. Raises subprocess.TimeoutExpired."""
    read: dict[int, list[bytes]] = {end: [] for end in ends}
    deadline = time.monotonic() + timeout
    with ExitStack() as closing, selectors.DefaultSelector() as selector:
        for end in ends:
            closing.callback(os.close, end)
            selector.register(end, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                raise subprocess.TimeoutExpired("a forked command", timeout)
            for key, _ in ready:
                read[key.fd].append(os.read(key.fd, 1 << 16))
                if not read[key.fd][-1]:
                    selector.unregister(key.fd)
    return [b"".join(data) for data in read.values()]


def _kill_session(pid: int) -> None:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[3] == str(pid):
                os.kill(int(path.parent.name), signal.SIGKILL)


def _text(data: bytes) -> str:
    """As subprocess decodes it with text=True."""
    return data.decode().replace("\r\n", "\n").replace("\r", "\n")
