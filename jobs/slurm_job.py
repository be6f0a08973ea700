"""`python -m jobs.slurm_job STAGE RUN`: what a Slurm job of a chain runs. The array's index is the shard."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import cast

from embedkit.errors import EmbedkitError
from embedkit.files import job_name
from embedkit.lease import release_ended
from embedkit.runfolder import RunFolder
from embedkit.shardfile import durable_chunks
from jobs.attempts import LIMIT, Attempts, failed_preflight, node_name
from jobs.profiles import Stage
from jobs.scratch import node_scratch, pack_compiled
from jobs.slurm import state_of
from jobs.stopping import Stopping, requeue, was_cancelled
from jobs.tasks import embed_task, exit_code_of, log_to_stderr, merge_task, preflight_task, prepare_task

log = logging.getLogger("embedkit")


class SlurmJob:
    """One start of one job of a run."""

    def __init__(self, stage: Stage, run: RunFolder) -> None:
        self._stage = stage
        self._run = run
        self._shard = int(os.environ["SLURM_ARRAY_TASK_ID"]) if stage == "embed" else None
        self._attempts = Attempts(run, stage, self._shard)

    def run(self) -> int:
        """Do the job's work; returns the exit code. A job that is told to stop ends in here."""
        log.info("job %s on %s, start %s", job_name(), node_name(), os.environ.get("SLURM_RESTART_COUNT", "0"))
        self._attempts.add("started", self._done(), "")
        with Stopping(self._stop) as stopping:
            try:
                self._work()
            except Exception as error:
                stopping.settle()
                code = exit_code_of(error)
                kind = "" if isinstance(error, EmbedkitError) else f"{type(error).__name__}: "
                self._attempts.add("failed", self._done(), f"{kind}{error}")
                return code
        self._attempts.add("finished", self._done(), "")
        return 0

    def _work(self) -> None:
        path = self._run.path
        if self._stage == "merge":
            self._release(self._run.embeddings / "merge.lease")
            if (why := failed_preflight(self._run)) is not None:
                log.error("the preflight failed, so embed did not start: %s", why)
            merge_task(path)
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
        done = self._done()
        log.warning("%s: what is in hand is dropped; what is durable is kept", told.name)
        if told == signal.SIGTERM and was_cancelled():
            self._attempts.add("cancelled", done, "")
            log.error("cancelled; to run it again: %s", self._run.resume_command)
            return
        in_vain = self._attempts.stops_in_vain(done)
        why = f"stopped {in_vain + 1} times with nothing new done" if in_vain + 1 >= LIMIT else None
        # Noted before Slurm is asked, which may kill this process at once.
        self._attempts.add("stopped" if why is None else "failed", done, why or told.name)
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
        release_ended(lease, lambda job: job != os.environ.get("SLURM_JOB_ID") and state_of(job)[0] not in ALIVE)


ALIVE = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "UNKNOWN")
"""States in which a job may still be at work; where Slurm does not answer, it is believed to be."""


def main() -> None:
    """Run the job that the arguments name."""
    stage, run = sys.argv[1:]
    log_to_stderr()
    sys.exit(SlurmJob(cast("Stage", stage), RunFolder(Path(run))).run())


if __name__ == "__main__":
    main()
