"""The fork server: python -m tests.support.forked.server FD

It has imported embedkit and all that embedkit uses, and forks a process per command. So a command costs a few hundred
milliseconds and not seconds. The commands are real processes with a session, output, environment and signals of their
own; only the imports are shared. What they start themselves is forked, too (children.py).

FD is the server's end of a socket. Each message there carries three file descriptors: a connection, the command's
stdout and its stderr. A line of JSON with the fields of `Request` (request.py) comes through the connection, and two
lines answer it: the process id, then the exit code. The server ends, with all it started, when its socket is closed.
"""

import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from multiprocessing import resource_tracker

import psutil

from tests.support.forked.children import exit_code_of, fork_children
from tests.support.forked.request import Request

IMPORTED = (
    "polars",
    "pyarrow.parquet",
    "rich.console",
    "submitit.core.submission",
    "submitit.local.local",
    "tokenizers",
    "jobs.cli.main",
    "jobs.cli.embed",
    "jobs.cli.merge",
    "jobs.cli.prepare",
    "jobs.cli.report",
    "jobs.cli.run",
    "jobs.cli.status",
    "jobs.cli.submit",
    "jobs.cli.verify",
    "jobs.node",
    "embedkit.check.preflight",
    "embedkit.embed",
    "embedkit.merge",
    "embedkit.prepare",
)
"""What commands import when they need it."""
NEVER_IMPORTED = ("huggingface_hub", "datasets", "torch", "transformers", "vllm")
"""They read their settings from the environment when they are imported, and embedkit sets some of them before."""


def run_command(request: Request, stdout: int, stderr: int) -> int:
    """Run one command in this process, which was forked for it. Returns the exit code."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, stream in ((nothing, 0), (stdout, 1), (stderr, 2)):
        os.dup2(fd, stream)
    _open_streams()
    tracker = resource_tracker.getfd()  # the commands share the server's
    os.closerange(3, tracker)
    os.closerange(tracker + 1, 1024)
    os.umask(request.umask)
    os.environ.clear()
    os.environ.update(request.environment)
    for name, *arguments in request.calls:
        module, _, function = name.partition(":")
        getattr(importlib.import_module(module), function)(*arguments)
    sys.modules.pop(request.module, None)  # `python -m` runs it as __main__ and has not imported it
    sys.argv = ["", *request.arguments]
    return exit_code_of(lambda: runpy.run_module(request.module, run_name="__main__", alter_sys=True))


def _open_streams() -> None:
    """Open Python's streams for what is there now; they remember whether their files can be sought."""
    sys.stdin = open(0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, closefd=False)  # noqa: SIM115
    for name, fd in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        file = open(fd, "wb", 0 if old.write_through else -1, closefd=False)  # noqa: SIM115
        kept = {"line_buffering": old.line_buffering, "write_through": old.write_through}
        stream = io.TextIOWrapper(file, old.encoding, old.errors, **kept)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


class Server:
    """Accepts requests, forks a process for each, and reports how it ended."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._connections: dict[int, socket.socket] = {}
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)

    def serve(self) -> None:
        """Serve until the other end of the socket is closed."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._socket.sendall(b"ready")
        while True:
            ready, _, _ = select.select([self._socket, self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._report_ended()
            if self._socket in ready and not self._accept():
                self._kill_all()
                return

    def _accept(self) -> bool:
        """Start the command that is asked for. Returns False if nobody will ask again."""
        message, fds, _, _ = socket.recv_fds(self._socket, 1, 3)
        if not message:
            return False
        connection, (stdout, stderr) = socket.socket(fileno=fds[0]), fds[1:]
        with connection.makefile("rb") as lines:
            request = Request(**json.loads(lines.readline()))
        pid = os.fork()
        if pid == 0:
            self._run(request, stdout, stderr)
        os.close(stdout)
        os.close(stderr)
        self._connections[pid] = connection
        connection.sendall(b"%d\n" % pid)
        return True

    def _run(self, request: Request, stdout: int, stderr: int) -> None:
        """Run the command in the forked process, and end that process."""
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            code = run_command(request, stdout, stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _report_ended(self) -> None:
        while self._connections:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = self._connections.pop(pid, None)
            if connection is not None:
                with suppress(OSError), connection:
                    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))

    def _kill_all(self) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()


def main() -> None:
    """Start the server."""
    for name in IMPORTED:
        importlib.import_module(name)
    with suppress(ModuleNotFoundError):
        importlib.import_module("pandas")  # polars and pyarrow look for it; embedkit does not need it
    assert not (early := [name for name in NEVER_IMPORTED if name in sys.modules]), early
    fork_children()
    resource_tracker.ensure_running()
    gc.freeze()  # the collector would otherwise copy all pages of what was imported, in every child
    Server(int(sys.argv[1])).serve()


if __name__ == "__main__":
    main()
