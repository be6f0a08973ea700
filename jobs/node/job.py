"""`python -m jobs.node.job STAGE RUN`: what a Slurm job of a chain runs. The array's index is the shard."""

import argparse
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
from embedkit.embed.shard_file import durable_chunks
from embedkit.errors import EmbedkitError
from embedkit.job import current_job, enter_job
from embedkit.run import RunFolder
from embedkit.storage.lock import release_ended
from jobs.local.queue import Job, LocalQueue, make_slots, visible_gpus
from jobs.node.scratch import node_scratch, pack_compiled
from jobs.node.signals import SignalWatcher, requeue, was_cancelled
from jobs.profiles.schema import STAGES, Stage
from jobs.records.attempts import LIMIT, AttemptEvent, Attempts, failed_preflight
from jobs.records.groups import group_of
from jobs.records.log_names import log_name
from jobs.slurm.client import array_indices, state_of
from jobs.slurm.environment import array_index, job_of_this_process
from jobs.slurm.states import may_run
from jobs.tasks import analyze_task, embed_task, exit_code_of, log_to_stderr, merge_task, preflight_task, prepare_task

log = logging.getLogger("embedkit")


class SlurmJob:
    """One start of one job of a run."""

    def __init__(self, stage: Stage, run: RunFolder) -> None:
        self._stage = stage
        self._run = run
        self._shard = array_index() if stage == "embed" else None
        self._attempts = Attempts(run, stage, self._shard)
        self._stopping = SignalWatcher(self._stop)

    def run(self) -> int:
        """Do the job's work; returns the exit code. A job that is told to stop ends in here."""
        job = current_job()
        log.info("job %s on %s, start %d", job.name, job.node, job.restart)
        self._note("started", "")
        with self._stopping:
            try:
                self._work()
            except Exception as error:
                self._stopping.wait_if_signalled()
                code = exit_code_of(error)
                kind = "" if isinstance(error, EmbedkitError) else f"{type(error).__name__}: "
                self._note("failed", f"{kind}{error}")
                return code
        self._note("finished", "")
        return 0

    def _note(self, what: AttemptEvent, why: str) -> None:
        self._attempts.add(what, self._done(), why)

    def _stops_without_progress(self) -> int:
        return self._attempts.stops_without_progress(self._done())

    def _work(self) -> None:
        path = self._run.path
        if self._stage == "merge":
            self._release(self._run.embeddings / "merge.lease")
            if (why := failed_preflight(self._run)) is not None:
                log.error("the preflight failed, so embed did not start: %s", why)
            merge_task(path)
            return
        if self._stage == "analyze":
            self._release(self._run.analysis_lock)
            analyze_task(path)
            return
        if self._stage == "prepare":
            self._release(self._run.parts / "prepare.lease")
            prepare_task(path)
            return
        with node_scratch(self._run) as compiled:
            if self._shard is None:
                preflight_task(path)
                pack_compiled(self._run, compiled)
            else:
                embed_task(path, self._shard)

    def _stop(self, told: signal.Signals) -> None:
        """Told to stop: start again later, unless it was cancelled or that got nothing done for too often."""
        log.warning("%s: what is in hand is dropped; what is durable is kept", told.name)
        if told == signal.SIGTERM and was_cancelled():
            self._note("cancelled", "")
            log.error("cancelled; to run it again: %s", self._run.resume_command)
            return
        in_vain = self._stops_without_progress()
        why = f"stopped {in_vain + 1} times with nothing new done" if in_vain + 1 >= LIMIT else None
        # Noted before Slurm is asked, which may kill this process at once.
        self._note("stopped" if why is None else "failed", why or told.name)
        why = why or requeue()
        if why is None:
            log.info("requeued: it goes on where it is now")
        else:
            log.error("not requeued: %s; to run it again: %s", why, self._run.resume_command)

    def _done(self) -> int:
        """How much is durable: chunks of a shard, parts of prepare; else 0."""
        if self._shard is not None:
            return durable_chunks(self._run.shard(self._shard))
        return len(list(self._run.parts.glob("part-*.json"))) if self._stage == "prepare" else 0

    def _release(self, lease: Path) -> None:
        """Take away the lease of a job that a lost node or a kill ended before it could."""
        release_ended(lease, lambda job: job != current_job().id and not may_run(state_of(job)[0]))


class GroupJob(SlurmJob):
    """One start of an array task that embeds several shards side by side, each in a worker with a GPU of its own."""

    def __init__(self, run: RunFolder, shards: Sequence[int], workers: int) -> None:
        super().__init__("embed", run)
        self._workers = workers
        self._open = {shard: Attempts(run, "embed", shard) for shard in shards}
        """Shards that have not ended."""

    def _note(self, what: AttemptEvent, why: str) -> None:
        for shard, attempts in self._open.items():
            attempts.add(what, durable_chunks(self._run.shard(shard)), why, with_use=False)  # it is all workers'

    def _stops_without_progress(self) -> int:
        """How many stops in a row no shard made progress before."""
        counts = [
            own.stops_without_progress(durable_chunks(self._run.shard(shard))) for shard, own in self._open.items()
        ]
        return min(counts, default=0)

    def _work(self) -> None:
        names = {log_name("embed", shard): shard for shard in self._open}
        failed: list[int] = []

        def on_end(name: str, why: str | None) -> None:
            if why is not None:
                self._stopping.wait_if_signalled()  # a signal that ends the job may have reached the worker first
                failed.append(names[name])
                log.error("%s failed: %s", name, why)
            what: AttemptEvent = "finished" if why is None else "failed"
            shard = names[name]
            self._open.pop(shard).add(what, durable_chunks(self._run.shard(shard)), why or "", with_use=False)

        jobs = [Job(name, embed_task, (self._run.path, shard)) for name, shard in names.items()]
        with node_scratch(self._run):
            queue = LocalQueue(self._run, make_slots(self._workers, self._gpus()), Path(tempfile.gettempdir()))
            queue.run(jobs, lambda: None, on_end)
        if failed:
            raise EmbedkitError(f"shards {', '.join(map(str, sorted(failed)))} failed; logs/embed-*.log say why")

    def _gpus(self) -> list[str]:
        """The CUDA names of the workers' GPUs; none on a cluster of CPUs."""
        gpus = visible_gpus()
        if read(self._run.config, RunConfig).request.device == "cuda" and len(gpus) < self._workers:
            raise EmbedkitError(
                f"gpus_per_job = {self._workers} workers, and this task sees {len(gpus)} GPUs on "
                f"{current_job().node}: see gpus or gres in the profile"
            )
        return gpus[: self._workers] if len(gpus) >= self._workers else []


def main() -> None:
    """Run the job that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("run", type=Path)
    parser.add_argument("--shards", help="of the whole array, in groups of --per-job; the array index begins one")
    parser.add_argument("--per-job", type=int, default=1)
    given = parser.parse_args()
    log_to_stderr()
    enter_job(job_of_this_process())
    run = RunFolder(given.run)
    index = array_index()
    if index is None and given.stage == "embed":
        parser.error("embed is a task of a job array, which sbatch --array starts")
    job: SlurmJob
    if given.shards is None or index is None:
        job = SlurmJob(given.stage, run)
    else:
        job = GroupJob(run, group_of(index, array_indices(given.shards), given.per_job), given.per_job)
    sys.exit(job.run())


if __name__ == "__main__":
    main()
