"""`embedkit cancel`: end all jobs of a run, on the cluster or on this machine. Finished work stays."""

import os
import signal
from collections import Counter
from dataclasses import dataclass, replace

import msgspec

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage import holder_of, run_lock
from jobs.profiles import STAGES
from jobs.records import LiveReader, LiveTask, LiveTasks, Submissions, adopt_found, now
from jobs.slurm import SETTLE_SECONDS, Task, array_spec, cancel, require_slurm, still_active


@dataclass(frozen=True)
class Cancelled:
    """What was cancelled: ids of Slurm jobs, their tasks as (stage, state, count), and a process on this machine.

    `left`: what may still be queued or running, in words; "" for nothing. `notes`: what Slurm did not show.
    """

    jobs: tuple[str, ...] = ()
    tasks: tuple[tuple[str, str, int], ...] = ()
    process: int | None = None
    left: str = ""
    notes: tuple[str, ...] = ()


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
    if not holder.is_here:
        raise EmbedkitError(f"{run.path}: process {holder.pid} on {holder.host} works on this run; interrupt it there")
    os.kill(holder.pid, signal.SIGINT)
    return replace(found, process=holder.pid)


def _cancel_jobs(run: RunFolder) -> Cancelled:
    require_slurm()
    with run_lock(run.submit_lock, "submitting this run"):
        record = Submissions(run)
        found = LiveReader(run).read(without_squeue=True)
        adopt_found(run, found)
        live = found.tasks
        # Last stages first: merge would start as soon as embed is gone. Last jobs first: those of embed may wait too.
        jobs = list(dict.fromkeys(one.task.job for one in sorted(live, key=_last_stage_first)))
        problem, left = _end([*jobs, *(job for job in found.unanswered if job not in jobs)])
        tasks = [one.task for one in live]
        for line in record.read():
            if line.what == "submitted" and line.job in {*jobs, *found.unanswered} - left:
                record.add(msgspec.structs.replace(line, what="cancelled", at=now(), array=_array(tasks, line.job)))
    if found.lost:
        name = " ".join(found.lost)
        problem += f"{'; ' if problem else ''}sbatch did not answer for {name}, nor does scontrol: such a job may run"
    counts = Counter((task.stage, task.task.state.lower()) for task in live)
    return Cancelled(
        tuple(jobs),
        tuple((stage, state, count) for (stage, state), count in sorted(counts.items())),
        left=problem,
        notes=_notes(found),
    )


def _end(jobs: list[str]) -> tuple[str, set[str]]:
    """Cancel jobs, and check that they are gone; returns what may be left, in words and by id.

    An error of scancel alone means little: of several jobs one may have ended meanwhile.
    """
    error = ""
    try:
        cancel(jobs)
    except EmbedkitError as failed:
        error = f" ({failed})"
    found = still_active(jobs, 0.0 if error else SETTLE_SECONDS)
    left = {task.job for task in found.active} | (set(found.unanswered) if error else set())
    names = " ".join(sorted(left, key=int))
    if left:
        return f"these jobs may still be queued or running: {names}{error}; try again, or: scancel {names}", left
    if found.unanswered:
        names = " ".join(found.unanswered)
        return f"scontrol does not say whether these jobs have ended: {names}; look with: squeue --me", set()
    return "", set()


def _notes(found: LiveTasks) -> tuple[str, ...]:
    """What Slurm's commands did not show."""
    notes = []
    if found.note:
        notes.append(f"{found.note}; the jobs were found by scontrol")
    elif found.unseen:
        notes.append(f"squeue does not show {', '.join(found.unseen)}, found by scontrol")
    if found.outdated:
        notes.append(found.outdated_note)
    if found.unanswered:
        notes.append(
            f"neither squeue nor scontrol shows {', '.join(found.unanswered)}, cancelled by their recorded ids"
        )
    return tuple(notes)


def _array(tasks: list[Task], job: str) -> str:
    """The indices of the tasks that were active: a task that failed before does not count as cancelled."""
    return array_spec(sorted(task.index for task in tasks if task.job == job and task.index is not None))


def _last_stage_first(live: LiveTask) -> tuple[int, int]:
    return -STAGES.index(live.stage), -int(live.task.job)
