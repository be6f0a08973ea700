"""One attempt at a task of embed with several shards (gpus_per_job)."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from embedkit.documents import RunConfig, read
from embedkit.embed import StoppedAtChunk, durable_chunks
from embedkit.errors import EmbedkitError, GpuDiffers, GpuHeld
from embedkit.job import current_job
from embedkit.run import RunFolder
from jobs.local import Job, LocalQueue, make_slots, visible_gpus
from jobs.node.bad_node import keep_waiting_tasks_off_this_node
from jobs.node.scratch import node_scratch
from jobs.node.slurm_job import SlurmJob
from jobs.node.worker import embed_in_worker, error_code_of, has_stopped
from jobs.records import Attempts, EventKind, log_name

log = logging.getLogger("embedkit")


class GroupJob(SlurmJob):
    """One attempt at a task with several shards: one worker per shard, side by side, each with its own GPU."""

    def __init__(self, run: RunFolder, shards: Sequence[int], workers: int, allow_mixed: bool = False) -> None:
        super().__init__("embed", run, allow_mixed, shards[0])
        self._workers = workers
        self._open = {shard: Attempts(run, "embed", shard) for shard in shards}
        """The attempts files of the shards that have not ended."""

    def _record(self, what: EventKind, why: str = "", error_code: str = "") -> None:
        for shard, attempts in self._open.items():
            # This process's usage is that of all workers together, so no shard's event has it.
            attempts.add(what, len(durable_chunks(self._run.shard(shard))), why, error_code, with_usage=False)

    def _shards(self) -> list[int]:
        return list(self._open)

    def _has_progressed(self) -> bool:
        newest = [(shard, attempts.attempts()[-1:]) for shard, attempts in self._open.items()]
        return any(
            not one or one[0].started.done != len(durable_chunks(self._run.shard(shard))) for shard, one in newest
        )

    def _stops_without_progress(self) -> int:
        """Count the stops in a row during which no shard made progress."""
        counts = [
            attempts.stops_without_progress(len(durable_chunks(self._run.shard(shard))))
            for shard, attempts in self._open.items()
        ]
        return min(counts, default=0)

    def _work(self) -> None:
        names = {log_name("embed", shard): shard for shard in self._open}
        failed: list[int] = []
        stopped: list[int] = []
        codes: set[str] = set()

        with node_scratch(self._run):
            scratch = self._chunk_end.enter(Path(tempfile.gettempdir()))

            def on_end(name: str, why: str | None) -> None:
                shard = names[name]
                if why is None and has_stopped(scratch, shard):
                    stopped.append(shard)  # its end is recorded with that of the job
                    return
                if why is not None:
                    self._signals.wait_if_signalled()  # a signal that ends the job may have reached the worker first
                    failed.append(shard)
                    log.error("%s failed: %s", name, why)
                what: EventKind = "finished" if why is None else "failed"
                done, code = len(durable_chunks(self._run.shard(shard))), error_code_of(scratch, shard)
                codes.add(code)
                self._open.pop(shard).add(what, done, why or "", code, with_usage=False)

            arguments = {name: (self._run.path, shard, scratch, self._allow_mixed) for name, shard in names.items()}
            jobs = [Job(name, embed_in_worker, own) for name, own in arguments.items()]
            queue = LocalQueue(self._run, make_slots(self._workers, self._gpus()), scratch)
            queue.run(jobs, lambda: None, on_end)
        if codes & {GpuDiffers.code, GpuHeld.code}:
            keep_waiting_tasks_off_this_node(self._run)
        if stopped:
            raise StoppedAtChunk
        if failed:
            raise EmbedkitError(f"shards {', '.join(map(str, sorted(failed)))} failed; see logs/embed-*.log")

    def _gpus(self) -> list[str]:
        """The CUDA names of the workers' GPUs; none on a cluster of CPUs."""
        gpus = visible_gpus()
        if read(self._run.config, RunConfig).request.device == "cuda" and len(gpus) < self._workers:
            raise EmbedkitError(
                f"gpus_per_job = {self._workers} needs as many GPUs, and this task sees {len(gpus)} on "
                f"{current_job().node}: check gpus or gres in the profile"
            )
        return gpus[: self._workers] if len(gpus) >= self._workers else []
