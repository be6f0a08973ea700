"""Stops a shard task at the end of a chunk, on request of another thread or process of the same node.

The task writes what it does to a small file, and looks for the request before each chunk. Both are in a folder of the
node. Times are those of time.monotonic(), which is the same in all processes of a node.
"""

import time
from contextlib import suppress
from pathlib import Path

import msgspec

REQUEST = "stop-at-chunk"


class StoppedAtChunk(Exception):
    """The task ended at the end of a chunk, because that was requested. Everything that it embedded is durable."""


class ChunkStatus(msgspec.Struct, frozen=True):
    """What a shard task does.

    began: when it began the chunk in hand, or to start; first: when it began its first chunk, None while it starts;
    seconds: how long a chunk like the one in hand takes, measured in this shard or else predicted.
    """

    began: float
    first: float | None
    seconds: float
    is_measured: bool

    def seconds_left(self) -> float | None:
        """Expected seconds until the chunk in hand is durable; None if the task has not begun one."""
        return None if self.first is None else max(self.began + self.seconds - time.monotonic(), 0.0)


class StopAtChunk:
    """The files of one shard's task. The task calls `starting` and `may_begin`; who stops it reads `status`."""

    def __init__(self, folder: Path, shard: int) -> None:
        self._folder = folder
        self._status = folder / f"chunk-{shard:05d}"
        self._first: float | None = None

    def starting(self, seconds: float) -> None:
        """Report that the task starts. A chunk is predicted to take this many seconds."""
        self._report(ChunkStatus(time.monotonic(), None, seconds, is_measured=False))

    def may_begin(self, seconds: float, is_measured: bool) -> bool:
        """Report that a chunk of so many seconds begins; returns False, and reports nothing, if it must not.

        After a request no chunk begins. Only a task that has embedded none yet still gets one, if it fits.
        """
        now, deadline = time.monotonic(), _deadline(self._folder)
        if deadline is not None and (self._first is not None or now + seconds > deadline):
            return False
        self._first = now if self._first is None else self._first
        self._report(ChunkStatus(now, self._first, seconds, is_measured))
        return True

    def status(self) -> ChunkStatus | None:
        """What the task does; None if it has not reported anything yet."""
        try:
            return msgspec.json.decode(self._status.read_bytes(), type=ChunkStatus)
        except (OSError, msgspec.DecodeError):
            return None

    def _report(self, status: ChunkStatus) -> None:
        temporary = self._status.with_suffix(".new")
        with suppress(OSError):  # a full disk of the node: the status explains, and no chunk needs it
            temporary.write_bytes(msgspec.json.encode(status))
            temporary.rename(self._status)


def request_stop(folder: Path, deadline: float) -> None:
    """Request that all shard tasks with this folder stop at the end of a chunk, before a time of time.monotonic()."""
    temporary = folder / f"{REQUEST}.new"
    with suppress(OSError):  # a full disk of the node: the tasks are stopped at the deadline
        temporary.write_text(str(deadline), encoding="utf-8")
        temporary.rename(folder / REQUEST)


def is_stop_requested(folder: Path) -> bool:
    """Whether the tasks with this folder are to stop."""
    return _deadline(folder) is not None


def _deadline(folder: Path) -> float | None:
    try:
        return float((folder / REQUEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
