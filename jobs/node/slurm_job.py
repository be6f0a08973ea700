"""One attempt at one job of a run: does its work, records how it ends, and requests a requeue if it is stopped."""

import logging
import signal
import tempfile
from pathlib import Path

from embedkit.embed import StoppedAtChunk, durable_chunks
from embedkit.errors import EmbedkitError, GpuDiffers, GpuHeld, PreflightFailed
from embedkit.job import current_job
from embedkit.run import RunFolder
from embedkit.storage import release_ended
from jobs.node.bad_node import keep_waiting_tasks_off_this_node
from jobs.node.chunk_end import ChunkEnd
from jobs.node.node_folders import remove_abandoned
from jobs.node.scratch import node_scratch, pack_compiled, scratch_roots
from jobs.node.signals import SignalWatcher, requeue
from jobs.profiles import Stage
from jobs.records import MAX_ATTEMPTS_WITHOUT_PROGRESS, NO_PROGRESS, UNCOUNTED, Attempts, EventKind, failed_preflight
from jobs.slurm import StopCause, may_run, state_of, stop_cause
from jobs.tasks import analyze_task, embed_task, exit_code_of, merge_task, preflight_task, prepare_task

log = logging.getLogger("embedkit")


class SlurmJob:
    """One attempt at one job of a run. `allow_mixed`: accept shards of different engines."""

    def __init__(self, stage: Stage, run: RunFolder, allow_mixed: bool = False, shard: int | None = None) -> None:
        """`shard`: the shard of embed; None for other stages."""
        self._stage = stage
        self._run = run
        self._allow_mixed = allow_mixed
        self._shard = shard
        self._attempts = Attempts(run, stage, self._shard)
        self._signals = SignalWatcher(self._stop, self._warned)
        self._chunk_end = ChunkEnd(run)
        self._has_stopped = False

    def run(self) -> int:
        """Do the job's work and return the exit code. If a signal stops the job, this does not return."""
        job = current_job()
        log.info("job %s on %s, start %d", job.name, job.node, job.restart)
        self._record("started")
        with self._signals:
            try:
                self._work()
            except StoppedAtChunk:
                self._has_stopped = True
                self._signals.stop()
            except Exception as error:
                self._signals.wait_if_signalled()
                code = exit_code_of(error)
                if isinstance(error, EmbedkitError):
                    self._record("failed", str(error), error.code)
                else:
                    self._record("failed", f"{type(error).__name__}: {error}")
                if isinstance(error, GpuDiffers | GpuHeld) and self._shard is not None:
                    keep_waiting_tasks_off_this_node(self._run)
                return code
        self._record("finished")
        return 0

    def _record(self, what: EventKind, why: str = "", error_code: str = "") -> None:
        """Write an event to the attempts file."""
        self._attempts.add(what, self._done(), why, error_code)

    def _stops_without_progress(self) -> int:
        return self._attempts.stops_without_progress(self._done())

    def _work(self) -> None:
        path = self._run.path
        if self._stage in ("prepare", "merge", "analyze"):
            remove_abandoned(scratch_roots())  # the stages with an engine do it in node_scratch
        if self._stage == "merge":
            self._release(self._run.merge_lock)
            if (why := failed_preflight(self._run)) is not None and not any(self._run.logs.glob("embed-*.jsonl")):
                raise PreflightFailed(f"the preflight failed, so embed did not start: {why}")
            merge_task(path, self._allow_mixed)
            return
        if self._stage == "analyze":
            self._release(self._run.analysis_lock)
            analyze_task(path)
            return
        if self._stage == "prepare":
            self._release(self._run.prepare_lock)
            prepare_task(path)
            return
        with node_scratch(self._run) as compiled:
            if self._shard is None:
                preflight_task(path, self._allow_mixed)
                pack_compiled(self._run, compiled)
            else:
                folder = self._chunk_end.enter(Path(tempfile.gettempdir()))
                embed_task(path, [self._shard], self._allow_mixed, folder)

    def _shards(self) -> list[int]:
        """The shards that this job embeds and that have not ended."""
        return [] if self._shard is None else [self._shard]

    def _warned(self, received: signal.Signals) -> float:
        """How many seconds the shard tasks get to end the chunk in hand; 0: the job is stopped at once."""
        return self._chunk_end.warned(self._shards()) if self._stage == "embed" else 0.0

    def _stop(self, received: signal.Signals) -> None:
        """Requeue the job, unless Slurm does, it was cancelled, or was stopped too often in a row without progress."""
        if self._has_stopped:
            log.info("no other chunk begins; everything that was embedded is durable")
        elif self._signals.is_time_over:
            log.warning("the time for the chunk is over: it is dropped; everything durable is kept")
        else:
            log.warning("%s: the work in hand is dropped; everything durable is kept", received.name)
        cause = stop_cause(current_job().name, current_job().restart) if received == signal.SIGTERM else "other"
        if cause == "cancelled":
            self._record("cancelled")
            log.error("cancelled; to run it again: %s", self._run.resume_command)
            return
        why, refused, code = self._why_stopped(received, cause)
        # Recorded before the request to Slurm, which may kill this process at once.
        self._record("stopped" if refused is None else "failed", refused or why, code)
        if cause == "requeued":
            log.info("Slurm starts it again by itself: the next attempt continues from here")
            return
        refused = refused or requeue()
        if refused is None:
            log.info("requeued: the next attempt continues from here")
        else:
            log.error("not requeued: %s; to run it again: %s", refused, self._run.resume_command)

    def _why_stopped(self, received: signal.Signals, cause: StopCause) -> tuple[str, str | None, str]:
        """What stopped the job, why it is not requeued (None: it is), and the error code of that."""
        refused, code = None, UNCOUNTED
        if cause == "other" and not self._chunk_end.is_preempted:
            stops = self._stops_without_progress() + 1
            refused = f"stopped {stops} times with nothing new done" if stops >= MAX_ATTEMPTS_WITHOUT_PROGRESS else None
            code = "" if refused is None else NO_PROGRESS
        if self._stage != "embed" or self._has_progressed():
            return received.name, refused, code
        try:
            arithmetic, advice = self._chunk_end.explain(received, self._shards())
        except Exception:  # the requeue comes first
            log.exception("the stop is not explained")
            return received.name, refused, code
        log.warning("nothing new was done: %s%s", arithmetic, advice)
        if refused is not None:
            refused += f": {arithmetic}{advice}"
        return f"{received.name} ({arithmetic})", refused, code

    def _has_progressed(self) -> bool:
        """Whether this attempt made a chunk durable; True if its start could not be recorded."""
        newest = self._attempts.attempts()[-1:]
        return not newest or newest[0].started.done != self._done()

    def _done(self) -> int:
        """How much is durable: chunks of a shard, parts of prepare, 0 for other stages."""
        if self._shard is not None:
            return len(durable_chunks(self._run.shard(self._shard)))
        return len(list(self._run.parts.glob("part-*.json"))) if self._stage == "prepare" else 0

    def _release(self, lock: Path) -> None:
        """Remove a run lock that an ended job left behind, because its node was lost or it was killed."""
        release_ended(lock, lambda job: job != current_job().id and not may_run(state_of(job)[0]))
