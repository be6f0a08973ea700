"""The fork server: python -m tests.support.faults.fork_server SOCKET

It has imported embedkit and all that embedkit uses, and forks a process per command. So a command costs a few hundred
milliseconds and not seconds. The commands are real processes with a session, output, environment and signals of their
own; only the imports are shared. What they start themselves is forked, too (forked_children.py).

One request per connection: a line of JSON with the fields of `Request` (requests.py). Two lines answer it: the process
id, then the exit code. The server ends, with all it started, when its stdin is closed.
"""

import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
import types
from contextlib import suppress
from multiprocessing import resource_tracker

import psutil

from jobs.cli.main import main as embedkit_main
from tests.support.faults.forked_children import exit_code_of, fork_children
from tests.support.faults.namespaces import in_new_pid_namespace
from tests.support.faults.requests import Request
from tests.support.faults.shim import attach
from tests.support.faults.small_parts import use_small_parts

IMPORTED = (
    "polars",
    "pyarrow.parquet",
    "rich.console",
    "submitit.core.submission",
    "submitit.local.local",
    "tokenizers",
    "jobs.cli.embed",
    "jobs.cli.merge",
    "jobs.cli.prepare",
    "jobs.cli.run",
    "jobs.cli.status",
    "jobs.cli.verify",
    "pandas",
)
"""What commands import when they need it. polars and pyarrow look for pandas; embedkit does not need it."""


def run_command(request: Request) -> int:
    """Run one command in this process, which was forked for it. Returns the exit code."""
    output = os.open(request.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, stream in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(fd, stream)
    tracker = resource_tracker.getfd()  # the commands share the server's
    os.closerange(3, tracker)
    os.closerange(tracker + 1, 1024)
    sys.modules["__main__"] = types.ModuleType("__main__")  # multiprocessing imports the main module in its workers
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
    os.environ.update(request.environment)
    if request.control:
        attach(request.control)
    sys.argv = ["embedkit", *request.arguments]
    module, _, name = request.program.partition(":")
    if module:
        return exit_code_of(lambda: getattr(importlib.import_module(module), name)(*request.arguments))
    return exit_code_of(embedkit_main)


class Server:
    """Accepts requests, forks a process for each, and reports how it ended."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._connections: dict[int, socket.socket] = {}
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)

    def serve(self) -> None:
        """Serve until stdin is closed."""
        faulthandler.enable(2)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self._listener, 0, self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._report_ended()
            if self._listener in ready:
                self._accept()
            if 0 in ready and not os.read(0, 1):
                self._kill_all()
                return

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        with connection.makefile("rb") as lines:
            request = Request(**json.loads(lines.readline()))
        pid = os.fork()
        if pid == 0:
            self._run(request)
        self._connections[pid] = connection
        connection.sendall(b"%d\n" % pid)

    def _run(self, request: Request) -> None:
        """Run the command in the forked process, and end that process."""
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            if request.namespace:
                in_new_pid_namespace()
            code = run_command(request)
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
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    use_small_parts()
    fork_children()
    resource_tracker.ensure_running()
    gc.freeze()  # the collector would otherwise copy all pages of what was imported, in every child
    server = Server(sys.argv[1])
    print("ready", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
