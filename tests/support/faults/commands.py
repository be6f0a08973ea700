"""Starts embedkit's commands, through the fork server or as a person does, and waits for them."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.conftest import EMBEDKIT, ROOT
from tests.support.checkout import python_path
from tests.support.faults.requests import Request
from tests.support.faults.shim import VARIABLE, Control, build
from tests.support.forked.client import ForkedProcess, ForkServer

FORKED_SECONDS = 120.0
REAL_SECONDS = 600.0
"""A command that takes longer hangs; one that is started as a person does imports everything several times."""
POLL_SECONDS = 0.004
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "EMBEDKIT_TOKENIZER": "hf",
}
"""Many processes of small work share few CPUs, and fastokens takes a tenth of a second to start."""
FAULTHANDLER = ["faulthandler:enable", 2]
SMALL_PARTS = ["tests.support.faults.small_parts:use_small_parts"]
NAMESPACE = ["tests.support.faults.namespaces:in_new_pid_namespace"]
ATTACH = "tests.support.faults.shim:attach"
"""What a forked command does first. PID namespaces come before the shim, which writes down process ids."""


@dataclass(frozen=True)
class Ended:
    """A command that ended: its exit code (negative: the signal that killed it; None: it hung), and what it printed."""

    name: str
    code: int | None
    text: str


class Command:
    """A running command. Its processes are those of its session. `seconds`: after which it hangs."""

    seconds = FORKED_SECONDS

    def __init__(self, pid: int, output: Path, control: Control | None) -> None:
        self.pid = pid
        self._start_time = _start_time(pid)
        self.output = output
        self.control = control

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        raise NotImplementedError

    def wait(self) -> Ended:
        """Wait for its end. A command that hangs is killed, and its output ends with the stacks of its processes."""
        deadline = time.monotonic() + self.seconds
        while (code := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if code is None:
            self.signal(signal.SIGABRT)  # FAULTHANDLER prints the stacks
            self._settle()
            self.signal(signal.SIGKILL)
            self._settle()
        return Ended(self.output.name, code, self.output.read_text(errors="replace"))

    def wait_for_step(self, seconds: float | None = None) -> bool:
        """Wait until its chosen step has stopped a process. False if it ended, or hangs, before."""
        assert self.control is not None
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        while time.monotonic() < deadline:
            if self.control.fired and any(_is_stopped(pid) for pid in self.processes()):
                return True
            if self.poll() is not None:
                return False
            time.sleep(POLL_SECONDS)
        return False

    def processes(self) -> list[int]:
        """Its living processes, children of children included."""
        if _start_time(self.pid) not in ("", self._start_time):
            return []  # the pid was given to another process, so the session has ended
        return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _session(pid) == self.pid]  # noqa: PTH208

    def signal(self, number: signal.Signals, pids: Sequence[int] | None = None) -> None:
        """Send a signal to all its processes, or to some."""
        for pid in self.processes() if pids is None else pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _settle(self) -> None:
        deadline = time.monotonic() + 5
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


class ForkedCommand(Command):
    """A command that the fork server started."""

    def __init__(self, process: ForkedProcess, output: Path, control: Control | None) -> None:
        super().__init__(process.pid, output, control)
        self._process = process

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()


class RealCommand(Command):
    """A command that was started as a person does."""

    seconds = REAL_SECONDS

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path, control: Control | None) -> None:
        super().__init__(process.pid, output, control)
        self._process = process

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()


class Commands:
    """Starts commands. Holds the fork server, whose processes end with it."""

    def __init__(self, folder: Path) -> None:
        self._environment = os.environ | ENVIRONMENT | {"LD_PRELOAD": str(build(folder))}
        self._server = ForkServer(self._environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def start(self, request: Request, control: Control | None, is_real: bool = False) -> Command:
        """Start a command: forked, or, if `is_real`, as a new process that imports everything itself."""
        output = Path(request.output)
        if is_real:
            return RealCommand(self._start_process(request), output, control)
        calls = [FAULTHANDLER, SMALL_PARTS, *([NAMESPACE] if request.namespace else [])]
        if request.control:
            calls.append([ATTACH, request.control])
        with output.open("ab") as file:
            environment = self._environment | request.environment
            process = self._server.start(
                request.module, request.arguments, environment, file.fileno(), file.fileno(), calls
            )
        return ForkedCommand(process, output, control)

    def _start_process(self, request: Request) -> "subprocess.Popen[bytes]":
        environment = python_path(Path(__file__).parent / "small") | {VARIABLE: request.control}
        wrapped = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] if request.namespace else []
        with Path(request.output).open("ab") as output:
            return subprocess.Popen(
                [*wrapped, *EMBEDKIT, *request.arguments],
                cwd=ROOT,
                env=self._environment | environment | request.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _session(pid: int) -> int:
    """The session of a living process; 0 for a zombie or none."""
    fields = _stat(pid)
    return int(fields[3]) if fields and fields[0] not in "ZX" else 0


def _start_time(pid: int) -> str:
    """When a process started; "" if there is none."""
    return next(iter(_stat(pid)[19:20]), "")


def _is_stopped(pid: int) -> bool:
    return _stat(pid)[:1] == ["T"]
