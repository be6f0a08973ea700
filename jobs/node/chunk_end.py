"""Before a job ends: let its shard tasks end the chunk in hand if the time that is left allows it."""

import logging
import signal
import time
from collections.abc import Collection
from pathlib import Path

from embedkit.embed import ChunkStatus, StopAtChunk, request_stop
from embedkit.run import RunFolder
from jobs.node.time_left import TimeLeft, advice, describe_warning, seconds_since_start, spent, time_left

log = logging.getLogger("embedkit")


class ChunkEnd:
    """Stops the shard tasks of one job at the end of a chunk, and explains a stop without a new chunk."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._folder: Path | None = None
        self._deadline: float | None = None
        self._time_left: TimeLeft | None = None
        self._seen: dict[int, ChunkStatus] = {}

    def enter(self, folder: Path) -> Path:
        """Use this folder of the node to stop the tasks; before that no task has begun. Returns the folder."""
        self._folder = folder
        if self._deadline is not None:
            request_stop(folder, self._deadline)
        return folder

    def warned(self, shards: Collection[int]) -> float:
        """How many seconds the tasks of these shards get to end the chunk in hand; 0: they are stopped at once."""
        self._time_left = time_left(self._run)
        statuses = self._statuses(shards)
        needs = [statuses[shard].seconds_left() if shard in statuses else None for shard in shards]
        # Of several workers, those that have the time end their chunk; the others are dropped when the time is up.
        seconds = max((self._time_left.for_chunk(need) for need in needs), default=0.0)
        log.warning("%s", describe_warning(self._time_left, needs, seconds > 0))
        if seconds > 0:
            self._deadline = time.monotonic() + seconds
            if self._folder is not None:
                request_stop(self._folder, self._deadline)
        return seconds

    @property
    def is_preempted(self) -> bool:
        """Whether Slurm answered a warning with a preemption; False before one."""
        return self._time_left is not None and self._time_left.is_preempted

    def explain(self, received: signal.Signals, shards: Collection[int]) -> tuple[str, str]:
        """What the time was spent on, and which setting gives a task more; for a stop with nothing new done."""
        # Before SIGTERM, Slurm is not asked: SIGKILL follows soon.
        times = self._time_left or TimeLeft(seconds_since_start())
        status = next(iter(self._statuses(shards).values()), None)
        return spent(received, times, status), advice(received, times)

    def _statuses(self, shards: Collection[int]) -> dict[int, ChunkStatus]:
        """The newest known status of each task that has reported one."""
        for shard in shards:
            if self._folder is not None and (status := StopAtChunk(self._folder, shard).status()) is not None:
                self._seen[shard] = status
        return {shard: self._seen[shard] for shard in shards if shard in self._seen}
