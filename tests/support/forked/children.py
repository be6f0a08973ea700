"""Lets a forked command fork what it would start: prepare's workers (multiprocessing) and submitit's jobs.

Such a start is `python -c` or `python -m` with a module that this process has imported already. The fork closes what
exec would close, and goes on with the same code. A process in which a library has started its threads cannot be forked
safely; it starts a new Python as usual. So does one whose child would read something else at its start.
"""

import atexit
import concurrent.futures.process
import concurrent.futures.thread
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from tests.support.forked.request import reads_at_start

STARTS = ("from multiprocessing.spawn import spawn_main", "from multiprocessing.forkserver import main")
"""How the code begins that multiprocessing starts for a worker, or for the server that forks workers."""
_at_start: dict[str, str] = {}
"""What this process and those that it forks have read of their environment."""


def fork_children() -> None:
    """Fork from now on, in this process and in those that it forks."""
    global _at_start
    _at_start = reads_at_start(os.environ)
    multiprocessing.util.spawnv_passfds = _spawnv_passfds(multiprocessing.util.spawnv_passfds)
    sys.modules["submitit.local.local"].subprocess = _Subprocess()  # type: ignore[attr-defined]


def exit_code_of(program: Callable[[], object]) -> int:
    """Run a program to the end of all its threads. Returns the exit code that Python would give."""
    code = 0
    try:
        program()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def can_fork() -> bool:
    """Whether no library of this forked process has threads yet: they would be missing in the child, which would wait.

    Those of the server do not count, because they are not in the forked processes. jemalloc's allow a fork.
    """
    names = [_name_of_thread(task) for task in os.listdir("/proc/self/task")]  # noqa: PTH208
    native = sum(not name.startswith("jemalloc") for name in names if name) - len(threading.enumerate())
    return native <= 0 and os.environ.get("PYTHONPATH") == _at_start.get("PYTHONPATH")


def _name_of_thread(task: str) -> str:
    try:
        return Path(f"/proc/self/task/{task}/comm").read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return ""


def _fork(program: Callable[[], object], keep: Sequence[int], before: Callable[[], object] = lambda: None) -> int:
    """Fork a process that runs a program and ends. `keep`: file descriptors that stay open, with 0 to 2."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        before()
        kept = {0, 1, 2, *keep, resource_tracker.getfd()}  # the tracker is the server's
        for fd in sorted({int(name) for name in os.listdir("/proc/self/fd")} - kept):  # noqa: PTH208
            try:
                if not os.get_inheritable(fd):
                    os.close(fd)
            except OSError:  # the one that listed the folder
                continue
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _forget_pools()
        code = exit_code_of(program)
    finally:
        os._exit(code)


def _forget_pools() -> None:
    """Forget the parent's pools, whose threads are not here: Python would wait for them at the end."""
    concurrent.futures.process._threads_wakeups.clear()  # type: ignore[attr-defined]
    concurrent.futures.thread._threads_queues.clear()  # type: ignore[attr-defined]


def _spawnv_passfds(spawn: Callable[..., int]) -> Callable[..., int]:
    def start(path: bytes, arguments: Sequence[str], passfds: Sequence[int]) -> int:
        at = arguments.index("-c") if "-c" in arguments else -2
        code = arguments[at + 1]
        if not code.startswith(STARTS) or not can_fork():
            return spawn(path, arguments, passfds)

        def program() -> None:
            sys.argv = ["-c", *map(str, arguments[at + 2 :])]
            exec(code, {})

        return _fork(program, passfds)

    return start


class _Subprocess:
    """The module subprocess as submitit sees it, with a Popen that forks."""

    def __init__(self) -> None:
        self.Popen = ForkedPopen

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)


class ForkedPopen(subprocess.Popen):  # type: ignore[type-arg]
    """A Popen that forks `python -m submitit...`. Everything else is started as usual."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        module = args[args.index("-m") + 1] if isinstance(args, list) and "-m" in args else ""
        # Python 3.11: executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell, pipes
        environment: Mapping[str, str] | None = rest[5]
        alike = reads_at_start(os.environ if environment is None else environment) == _at_start
        if not module.startswith("submitit.") or not alike or not can_fork():
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        output, errors = rest[12], rest[14]

        def set_up() -> None:
            for fd, stream in ((output, 1), (errors, 2)):
                if fd != -1:
                    os.dup2(fd, stream)
            if environment is not None:
                os.environ.clear()
                os.environ.update(environment)

        def program() -> None:
            threading.current_thread().name = "MainThread"
            sys.argv = [module, *args[args.index("-m") + 2 :]]
            runpy.run_module(module, run_name="__main__", alter_sys=False)

        self.pid = _fork(program, (), set_up)
        self._child_created = True
