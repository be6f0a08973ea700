"""Builds the LD_PRELOAD library shim.c, and writes and reads the control files that it shares with this process."""

import ctypes
import enum
import mmap
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "shim.c"
VARIABLE = "FAULTS_CONTROL"
"""Environment variable with the path of a process's control file."""


class Operation(enum.IntEnum):
    """What a step does; the numbers are those of shim.c."""

    WRITE = 0
    FSYNC = 1
    RENAME = 2
    LINK = 3
    UNLINK = 4
    TRUNCATE = 5
    MKDIR = 6
    CREATE = 7


class Action(enum.IntEnum):
    """What happens at the chosen step; the numbers are those of shim.c.

    SHORT and TORN write half of the bytes; TORN then kills. The others with AFTER do the step first.
    """

    NOTHING = 0
    FAIL = 1
    FAIL_AFTER = 2
    SHORT = 3
    STOP = 4
    STOP_AFTER = 5
    KILL = 6
    KILL_AFTER = 7
    TORN = 8


TRACED_STEPS = 4096


class _Traced(ctypes.Structure):
    """`struct traced` of shim.c."""

    _fields_ = [
        ("operation", ctypes.c_uint32),
        ("error", ctypes.c_int32),
        ("began", ctypes.c_uint32),
        ("ended", ctypes.c_uint32),
        ("file", ctypes.c_uint64),
        ("is_new", ctypes.c_uint32),
        ("pid", ctypes.c_int32),
        ("path", ctypes.c_char * 192),
        ("source", ctypes.c_char * 192),
    ]


class _Layout(ctypes.Structure):
    """`struct control` of shim.c."""

    _fields_ = [
        ("folder", ctypes.c_char * 512),
        ("name", ctypes.c_char * 128),
        ("without", ctypes.c_char * 128),
        ("operations", ctypes.c_uint32),
        ("action", ctypes.c_uint32),
        ("error", ctypes.c_int32),
        ("at", ctypes.c_uint32),
        ("again", ctypes.c_uint32),
        ("delay", ctypes.c_uint32),
        ("slow", ctypes.c_uint32),
        ("traces", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
        ("steps", ctypes.c_uint32),
        ("clock", ctypes.c_uint32),
        ("fired", ctypes.c_uint32),
        ("pid", ctypes.c_int32),
        ("operation", ctypes.c_uint32),
        ("path", ctypes.c_char * 512),
        ("trace", _Traced * TRACED_STEPS),
    ]


@dataclass(frozen=True)
class Step:
    """A step that was written down. Paths are inside the folder and begin with a slash; the folder itself is "".

    Attributes:
        operation: what was done.
        path: the file or folder. Of a rename or a link it is the new name.
        source: the earlier name; "" unless the step is a rename or a link.
        file: inode of the file or folder; 0 if there was none.
        began, ended: moments of one clock for all processes. `ended` is 0 if the process died in the call.
        error: errno of the call; 0 if it went well.
        is_new: whether a CREATE made the file.
        pid: the process.
    """

    operation: Operation
    path: str
    source: str = ""
    file: int = 0
    began: int = 0
    ended: int = 0
    error: int = 0
    is_new: bool = False
    pid: int = 0


@dataclass(frozen=True)
class Fault:
    """What the shim does, and where.

    operations: those that count as steps. action, at: what happens, and at which step, from 1 (0: never). again: also
    at every later step. error: the errno. name, without: only files with, or without, this text in their path count.
    delay: microseconds, at most, that each step waits. seed: of the delays. slow: microseconds that each fsync takes at
    least. traces: write down every step.
    """

    operations: tuple[Operation, ...] = tuple(Operation)
    action: Action = Action.NOTHING
    at: int = 0
    again: bool = False
    error: int = 0
    name: str = ""
    without: str = "/logs/"
    delay: int = 0
    seed: int = 1
    slow: int = 0
    traces: bool = False


class Control:
    """A control file: says what shall happen, and what has happened."""

    def __init__(self, path: Path, folder: Path, fault: Fault) -> None:
        self.path = path
        with path.open("w+b") as file:
            file.truncate(ctypes.sizeof(_Layout))
            self._map = mmap.mmap(file.fileno(), ctypes.sizeof(_Layout))
        self._now = now = _Layout.from_buffer(self._map)
        now.folder, now.name, now.without = bytes(folder), fault.name.encode(), fault.without.encode()
        now.operations = sum(1 << operation for operation in fault.operations)
        now.action, now.error, now.at, now.again = fault.action, fault.error, fault.at, fault.again
        now.delay, now.seed, now.slow, now.traces = fault.delay, fault.seed, fault.slow, fault.traces

    @property
    def steps(self) -> int:
        """Number of steps so far."""
        return int(self._now.steps)

    @property
    def fired(self) -> bool:
        """Whether the chosen step was reached."""
        return bool(self._now.fired)

    @property
    def step(self) -> str:
        """The step at which it happened: `write /embeddings/...`; "" if it was not reached."""
        if not self.fired:
            return ""
        inside = self._now.path.removeprefix(self._now.folder).decode(errors="replace")
        return f"{Operation(self._now.operation).name.lower()} {inside}"

    @property
    def pid(self) -> int:
        """The process in which it happened, as that process numbers itself."""
        return int(self._now.pid)

    def trace(self) -> list[tuple[Operation, str]]:
        """Operation and path of every step so far, if the fault traces."""
        return [(step.operation, step.path) for step in self.recorded()]

    def recorded(self) -> list[Step]:
        """Every step so far, in the order in which they began, if the fault traces.

        Raises RuntimeError if there were more steps than the control file holds.
        """
        if self._now.traces and self.steps > TRACED_STEPS:
            raise RuntimeError(f"{self.steps} steps, of which {TRACED_STEPS} can be written down")
        steps = [_step(one) for one in self._now.trace[: self.steps] if one.began]
        return sorted(steps, key=lambda step: step.began)

    def disarm(self) -> None:
        """Let nothing more happen: no action, no delays."""
        self._now.at = self._now.delay = self._now.again = 0


def _step(traced: _Traced) -> Step:
    return Step(
        Operation(traced.operation),
        traced.path.decode(errors="replace"),
        traced.source.decode(errors="replace"),
        file=traced.file,
        began=traced.began,
        ended=traced.ended,
        error=traced.error,
        is_new=bool(traced.is_new),
        pid=traced.pid,
    )


def build(folder: Path) -> Path:
    """Compile the shim. Returns the path of the library. Raises RuntimeError if there is no compiler."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise RuntimeError(f"the fault harness compiles {SOURCE}: install a C compiler (gcc and libc6-dev)")
    library = folder / "shim.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"shim.c does not compile: {done.stderr}")
    return library


def attach(path: str) -> None:
    """Use a control file in this process, which was started with the shim, and in those that it forks or starts."""
    os.environ[VARIABLE] = path  # a worker that cannot be forked is started, and reads it
    if ctypes.CDLL(None).faults_attach(path.encode()):
        raise OSError(f"the shim cannot use {path}")
