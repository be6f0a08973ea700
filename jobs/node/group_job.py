"""One attempt at a task of embed with several shards (gpus_per_job, shards_per_task)."""

import logging
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from embedkit.documents import RunConfig, read
from embedkit.embed import StoppedAtChunk, durable_chunks, is_stop_requested
from embedkit.errors import EmbedkitError, GpuDiffers, GpuHeld
from embedkit.job import current_job
from embedkit.run import RunFolder
from jobs.local import LocalQueue, make_slots, visible_gpus
from jobs.node.bad_node import keep_waiting_tasks_off_this_node
from jobs.node.next_shard import next_shard
from jobs.node.scratch import node_scratch
from jobs.node.slurm_job import SlurmJob
from jobs.node.worker import embed_in_worker, error_code_of, has_stopped
from jobs.records import NODE_FAULTS, Attempts, EventKind, log_name

log = logging.getLogger("embedkit")


class GroupJob(SlurmJob):
    """One attempt at a task with several shards. Its workers run side by side, each with its own GPU, and share them.

    A worker embeds its shards one after another with one engine.
    """

    def __init__(self, run: RunFolder, shards: Sequence[int], workers: int, allow_mixed: bool = False) -> None:
        super().__init__("embed", run, allow_mixed, shards[0])
        self._workers = workers
        self._open = {shard: Attempts(run, "embed", shard) for shard in shards}
        """The attempts files of the shards that have not ended."""
        if len(shards) > workers:
            finished = [shard for shard, attempts in self._open.items() if _finished_before(run, shard, attempts)]
            for shard in finished:
                del self._open[shard]
        self._has_ended_any = False

    def _record(self, what: EventKind, why: str = "", error_code: str = "") -> None:
        shards = list(self._open)[: self._workers] if what == "started" else self._begun()
        for shard in shards:
            # This process's usage is that of all workers together, so no shard's event has it.
            done = len(durable_chunks(self._run.shard(shard)))
            self._open[shard].add(what, done, why, error_code, with_usage=False)

    def _begun(self) -> list[int]:
        """The open shards that workers have begun: the others wait for their turn."""
        return [shard for shard, attempts in list(self._open.items()) if attempts.has_begun()]

    def _shards(self) -> list[int]:
        return self._begun()

    def _has_progressed(self) -> bool:
        newest = [(shard, self._open[shard].attempts()[-1]) for shard in self._begun()]
        return self._has_ended_any or any(
            one.started.done != len(durable_chunks(self._run.shard(shard))) for shard, one in newest
        )

    def _stops_without_progress(self) -> int:
        """Count the stops in a row during which no shard made progress."""
        counts = [
            self._open[shard].stops_without_progress(len(durable_chunks(self._run.shard(shard))))
            for shard in self._begun()
        ]
        return min(counts, default=0)

    def _work(self) -> None:
        names = {log_name("embed", shard): shard for shard in self._open}
        failed: list[int] = []
        stopped: list[int] = []
        codes: set[str] = set()

        with node_scratch(self._run):
            scratch = self._chunk_end.enter(Path(tempfile.gettempdir()))
            following = next_shard(self._run, self._open, scratch) if len(self._open) > self._workers else None

            def on_end(name: str, why: str | None) -> None:
                shard = names[name]
                if why is None and has_stopped(scratch, shard):
                    stopped.append(shard)  # its end is recorded with that of the job
                    return
                if why is not None:
                    self._signals.wait_if_signalled()  # a signal that ends the job may have reached the worker first
                    failed.append(shard)
                    log.error("%s failed: %s", name, why)
                code = error_code_of(scratch, shard)
                codes.add(code)
                self._end(shard, why, code)

            def may_take(shard: int, ended: int | None) -> bool:
                return following is not None and not codes & set(NODE_FAULTS) and following.may_begin(shard, ended)

            queue = LocalQueue(self._run, make_slots(self._workers, self._gpus()), scratch)
            embed = partial(embed_in_worker, self._run.path, scratch, self._allow_mixed)
            queue.share(embed, names, lambda: None, on_end, may_take)
            is_stopped = bool(stopped) or (bool(self._open) and is_stop_requested(scratch))
        if codes & {GpuDiffers.code, GpuHeld.code}:
            keep_waiting_tasks_off_this_node(self._run)
        if is_stopped:
            raise StoppedAtChunk
        self._leave_others()
        if failed:
            raise EmbedkitError(f"shards {', '.join(map(str, sorted(failed)))} failed; see logs/embed-*.log")

    def _end(self, shard: int, why: str | None, error_code: str) -> None:
        """Record the end of a shard; `why` is its error, None if it is finished."""
        self._has_ended_any = True
        attempts = self._open.pop(shard)
        done = len(durable_chunks(self._run.shard(shard)))
        if not attempts.has_begun():  # its worker died first
            attempts.add("started", done, "")
        attempts.add("finished" if why is None else "failed", done, why or "", error_code, with_usage=False)

    def _leave_others(self) -> None:
        """Leave the shards that no worker has begun to a rerun. This is no failure."""
        if self._open:
            left = ", ".join(map(str, self._open))
            log.warning("shards %s have not begun; for them: %s", left, self._run.resume_command)
        self._open.clear()

    def _gpus(self) -> list[str]:
        """The CUDA names of the workers' GPUs; none on a cluster of CPUs."""
        gpus = visible_gpus()
        if read(self._run.config, RunConfig).request.device == "cuda" and len(gpus) < self._workers:
            raise EmbedkitError(
                f"gpus_per_job = {self._workers} needs as many GPUs, and this task sees {len(gpus)} on "
                f"{current_job().node}: check gpus or gres in the profile"
            )
        return gpus[: self._workers] if len(gpus) >= self._workers else []


def _finished_before(run: RunFolder, shard: int, attempts: Attempts) -> bool:
    """Whether an earlier start of this job has finished a shard."""
    newest, job = attempts.attempts()[-1:], current_job()
    is_of_job = bool(newest) and newest[0].job == job.name and newest[0].restart < job.restart
    return is_of_job and newest[0].outcome == "finished" and run.shard_manifest(shard).exists()
