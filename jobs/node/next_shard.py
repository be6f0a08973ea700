"""Whether a worker that has ended a shard begins another one: only if the task's time is enough for it."""

import logging
import time
from collections.abc import Collection
from pathlib import Path

from embedkit.documents import RunConfig, read
from embedkit.embed import StopAtChunk, durable_chunks, is_stop_requested
from embedkit.prepare import read_plan, shard_of
from embedkit.run import RunFolder
from jobs.node.time_left import last_moment

log = logging.getLogger("embedkit")


class NextShard:
    """Answers for the shards of one task. A worker has a copy, and learns from its own shards how long they take."""

    def __init__(self, folder: Path, until: float | None, predicted: dict[int, float]) -> None:
        """For `next_shard`.

        Args:
            folder: the task's scratch folder, for requests to stop and for what the workers do.
            until: the last moment for the end of a shard, a time of time.monotonic(); None if there is none.
            predicted: the plan's seconds for what each shard lacks.
        """
        self._folder = folder
        self._until = until
        self._predicted = predicted
        self._ratio = 1.0
        """How many times longer than predicted a shard takes."""

    def may_begin(self, shard: int, ended: int | None) -> bool:
        """Whether a shard may begin. `ended`: the shard that the worker has just ended; None for a new worker."""
        if is_stop_requested(self._folder):
            return False
        if self._until is None:
            return True
        self._learn(ended)
        seconds, left = self._ratio * self._predicted[shard], self._until - time.monotonic()
        if seconds <= left:
            return True
        log.info(
            "shard %d does not begin: it takes about %.0f s, and the time limit leaves %.0f s", shard, seconds, left
        )
        return False

    def _learn(self, ended: int | None) -> None:
        """Compare the seconds of a shard with its prediction, from its first chunk on: without the engine's start."""
        status = None if ended is None else StopAtChunk(self._folder, ended).status()
        if ended is not None and status is not None and status.first is not None and self._predicted[ended]:
            self._ratio = (time.monotonic() - status.first) / self._predicted[ended]


def next_shard(run: RunFolder, shards: Collection[int], folder: Path) -> NextShard:
    """Make the answer for the shards of this task. Asks Slurm for the time limit.

    Raises EmbedkitError if the run is not prepared.
    """
    plan = read_plan(run, read(run.config, RunConfig))
    predicted = {}
    for shard in shards:
        planned = shard_of(plan.shards, shard, run.plan)
        chunks = max(len(planned.chunks) - 1, 1)
        predicted[shard] = planned.cost_seconds * (1 - len(durable_chunks(run.shard(shard))) / chunks)
    return NextShard(folder, last_moment(run), predicted)
