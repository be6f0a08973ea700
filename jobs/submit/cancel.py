"""`embedkit cancel`: end all jobs of a run, on the cluster or on this machine. Finished work stays."""

import os
import signal
from collections import Counter
from dataclasses import dataclass

import msgspec

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage import holder_of, process_host, run_lock
from jobs.profiles import STAGES
from jobs.records import LiveTask, Submissions, now
from jobs.slurm import Task, array_spec, cancel, queue, require_slurm


@dataclass(frozen=True)
class Cancelled:
    """What was cancelled: ids of Slurm jobs, their tasks as (stage, state, count), and a process on this machine."""

    jobs: tuple[str, ...] = ()
    tasks: tuple[tuple[str, str, int], ...] = ()
    process: int | None = None


def cancel_run(run: RunFolder) -> Cancelled:
    """Cancel all jobs of a run, and interrupt the `embedkit run` that works on it on this machine.

    Raises:
        EmbedkitError: another command is submitting this run, Slurm does not answer, or `embedkit run` works on it on
            another machine.
    """
    found = _cancel_jobs(run) if run.submissions.exists() else Cancelled()
    holder = holder_of(run.run_lock)
    if holder is None:
        return found
    if holder.host != process_host():
        raise EmbedkitError(f"{run.path}: process {holder.pid} on {holder.host} works on this run; interrupt it there")
    os.kill(holder.pid, signal.SIGINT)
    return Cancelled(found.jobs, found.tasks, holder.pid)


def _cancel_jobs(run: RunFolder) -> Cancelled:
    require_slurm()
    with run_lock(run.submit_lock, "submitting this run"):
        record = Submissions(run)
        live = record.live(queue())
        # Last stages first: merge would start as soon as embed is gone.
        jobs = list(dict.fromkeys(one.task.job for one in sorted(live, key=_last_stage_first)))
        cancel(jobs)
        tasks = [one.task for one in live]
        for line in record.read():
            if line.what == "submitted" and line.job in jobs:
                record.add(msgspec.structs.replace(line, what="cancelled", at=now(), array=_array(tasks, line.job)))
    counts = Counter((task.stage, task.task.state.lower()) for task in live)
    return Cancelled(tuple(jobs), tuple((stage, state, count) for (stage, state), count in sorted(counts.items())))


def _array(tasks: list[Task], job: str) -> str:
    """The indices of the tasks that were active: a task that failed before does not count as cancelled."""
    return array_spec(sorted(task.index for task in tasks if task.job == job and task.index is not None))


def _last_stage_first(live: LiveTask) -> tuple[int, str]:
    return -STAGES.index(live.stage), live.task.job
