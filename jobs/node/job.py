"""`python -m jobs.node.job STAGE RUN`: the command of each Slurm job of a run. An array's index is the shard."""

import argparse
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from embedkit.documents import RunConfig, read
from embedkit.embed import StopAtChunk, StoppedAtChunk, durable_chunks
from embedkit.errors import EmbedkitError, GpuDiffers, GpuHeld
from embedkit.job import current_job, enter_job
from embedkit.run import RunFolder
from embedkit.storage import release_ended
from jobs.local import Job, LocalQueue, make_slots, visible_gpus
from jobs.node.chunk_end import ChunkEnd
from jobs.node.node_folders import remove_abandoned
from jobs.node.scratch import node_scratch, pack_compiled, scratch_roots
from jobs.node.signals import SignalWatcher, requeue, was_cancelled
from jobs.node.worker import embed_in_worker, error_code_of, has_stopped
from jobs.profiles import STAGES, Stage
from jobs.records import (
    MAX_ATTEMPTS_WITHOUT_PROGRESS,
    NO_PROGRESS,
    Attempts,
    EventKind,
    failed_preflight,
    group_of,
    log_name,
)
from jobs.slurm import array_indices, exclude_from_waiting_tasks, job_id, may_run, state_of
from jobs.slurm_environment import array_index, job_of_this_process
from jobs.tasks import analyze_task, embed_task, exit_code_of, log_to_stderr, merge_task, preflight_task, prepare_task

log = logging.getLogger("embedkit")


class SlurmJob:
    """One attempt at one job of a run. `allow_mixed`: accept shards of different engines."""

    def __init__(self, stage: Stage, run: RunFolder, allow_mixed: bool = False) -> None:
        self._stage = stage
        self._run = run
        self._allow_mixed = allow_mixed
        self._shard = array_index() if stage == "embed" else None
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
                    _keep_waiting_tasks_off_this_node(self._run)
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
            if (why := failed_preflight(self._run)) is not None:
                log.error("the preflight failed, so embed did not start: %s", why)
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
                embed_task(path, self._shard, self._allow_mixed, StopAtChunk(folder, self._shard))

    def _shards(self) -> list[int]:
        """The shards that this job embeds and that have not ended."""
        return [] if self._shard is None else [self._shard]

    def _warned(self, received: signal.Signals) -> float:
        """How many seconds the shard tasks get to end the chunk in hand; 0: the job is stopped at once."""
        return self._chunk_end.warned(self._shards()) if self._stage == "embed" else 0.0

    def _stop(self, received: signal.Signals) -> None:
        """Requeue the job, unless it was cancelled or was stopped too often in a row without progress."""
        if self._has_stopped:
            log.info("no other chunk begins; everything that was embedded is durable")
        else:
            log.warning("%s: the work in hand is dropped; everything durable is kept", received.name)
        if received == signal.SIGTERM and was_cancelled():
            self._record("cancelled")
            log.error("cancelled; to run it again: %s", self._run.resume_command)
            return
        why, refused, code = self._why_stopped(received)
        # Recorded before the request to Slurm, which may kill this process at once.
        self._record("stopped" if refused is None else "failed", refused or why, code)
        refused = refused or requeue()
        if refused is None:
            log.info("requeued: the next attempt continues from here")
        else:
            log.error("not requeued: %s; to run it again: %s", refused, self._run.resume_command)

    def _why_stopped(self, received: signal.Signals) -> tuple[str, str | None, str]:
        """What stopped the job, why it is not requeued (None: it is), and the error code of that."""
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


class GroupJob(SlurmJob):
    """One attempt at an array task with several shards: one worker per shard, side by side, each with its own GPU."""

    def __init__(self, run: RunFolder, shards: Sequence[int], workers: int, allow_mixed: bool = False) -> None:
        super().__init__("embed", run, allow_mixed)
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
            _keep_waiting_tasks_off_this_node(self._run)
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


def _keep_waiting_tasks_off_this_node(run: RunFolder) -> None:
    """Exclude this node from the tasks of this job's array that have not started. Logs the result; raises nothing."""
    job = current_job()
    is_shard_finished = any(run.shard(0).parent.glob("*/manifest.json"))
    try:
        if exclude_from_waiting_tasks(job_id(job.name), job.node, others_fit=is_shard_finished):
            log.info("the array's waiting tasks will not start on %s", job.node)
    except EmbedkitError as error:
        log.warning("the array's waiting tasks may still start on %s: %s", job.node, error)


def main() -> None:
    """Run one job, as named by the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--shards",
        help="all shards of the array, cut into groups of --per-job; the array index is the first of a group",
    )
    parser.add_argument("--per-job", type=int, default=1)
    parser.add_argument("--allow-mixed", action="store_true", help="accept shards that different engines made")
    arguments = parser.parse_args()
    log_to_stderr()
    enter_job(job_of_this_process())
    run = RunFolder(arguments.run)
    index = array_index()
    if index is None and arguments.stage == "embed":
        parser.error("embed runs in a job array only: start it with sbatch --array")
    job: SlurmJob
    if arguments.shards is None or index is None:
        job = SlurmJob(arguments.stage, run, arguments.allow_mixed)
    else:
        group = group_of(index, array_indices(arguments.shards), arguments.per_job)
        job = GroupJob(run, group, arguments.per_job, arguments.allow_mixed)
    sys.exit(job.run())


if __name__ == "__main__":
    main()
