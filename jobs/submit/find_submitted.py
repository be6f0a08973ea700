"""Find the job of an sbatch that failed, hung or printed no clear id: the controller may have accepted it."""

import time
from collections.abc import Iterable, Sequence

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder, program
from embedkit.terminal import command_line
from jobs.output import print_note
from jobs.records import CLOCKS_SECONDS, COMMENT_PREFIX, LineFinder, Submission, Submissions, seconds_since_epoch
from jobs.slurm import SBATCH_SECONDS, SbatchAnswer, Task, all_jobs, find_in_accounting, job_list, queue

SEARCHES_AT = (0.0, 1.0, 2.0, 4.0, 6.0)
"""Seconds to wait before each search after a lost answer: a busy controller shows a job late."""
MOST_SECONDS = 60.0
"""No search begins later: while the controller hangs, each command takes as long as it may."""


class SbatchError(Exception):
    """sbatch refused a job, and Slurm has no such job. The text is sbatch's message."""


class LostJobError(Exception):
    """A job may have been submitted, and Slurm does not say so. The text says why."""


def confirm(run: RunFolder, line: Submission, answer: SbatchAnswer) -> str:
    """The id of the job that a call of sbatch made; searches for it unless the answer is certain.

    Raises:
        SbatchError: there is no such job.
        LostJobError: it is not known whether there is one.
    """
    _show_warnings([warning for warning in answer.warnings if warning not in answer.error])
    if answer.job is not None and answer.is_certain:
        return answer.job
    if answer.may_be_there:
        print_note(f"{line.job_name}: {answer.error}; searching for the job")
    job = _search(run, line, answer)
    if answer.error:
        print_note(f"{line.job_name} was submitted all the same: job {job}")
    return job


def _search(run: RunFolder, line: Submission, answer: SbatchAnswer) -> str:
    is_refused = bool(answer.error) and not answer.may_be_there  # then one look is enough
    unanswered: EmbedkitError | None = None
    until = time.monotonic() + MOST_SECONDS
    for seconds in SEARCHES_AT[:1] if is_refused else SEARCHES_AT:
        time.sleep(seconds)
        if time.monotonic() > until:
            break
        try:
            job = _find(run, line, answer.job, is_refused)
        except EmbedkitError as error:
            unanswered = error
            continue
        if job is not None:
            return job
        unanswered = None
    problem = answer.error or f"sbatch printed {answer.job}, but Slurm has no such job of this run"
    if unanswered is not None:
        raise LostJobError(f"{problem}\nSlurm does not say whether the job exists: {unanswered}")
    if not is_refused:
        raise LostJobError(f"{problem}\nSlurm does not show the job now, but it may appear later")
    raise SbatchError(problem)


def _find(run: RunFolder, line: Submission, printed: str | None, is_refused: bool) -> str | None:
    """The id of the job; None if Slurm has none.

    Args:
        run: the run.
        line: the line that was recorded before the sbatch.
        printed: the id that sbatch printed, perhaps.
        is_refused: sbatch gave a clear reason, so that squeue's answer is enough.

    Raises:
        EmbedkitError: Slurm does not say whether there is one.
    """
    lines = Submissions(run).read()
    finder = LineFinder(run, lines)
    problem = "squeue does not show it"
    try:
        job = _job_among(queue(), finder, line, printed)
        if job is not None:
            return job
    except EmbedkitError as error:
        problem, is_refused = str(error), False
    try:
        return _job_among(all_jobs(), finder, line, printed)
    except EmbedkitError as error:
        if is_refused:
            return None
        problem = f"{problem}; {error}"
    try:
        since = seconds_since_epoch(line.at) - CLOCKS_SECONDS
        known = {one.job for one in lines if one.job is not None}
        job = find_in_accounting(f"{run.name}.{line.job_name}", str(run.path), since, known)
    except EmbedkitError as error:
        raise EmbedkitError(f"{problem}; {error}") from None
    if job is None:
        raise EmbedkitError(problem)
    return job


def _job_among(tasks: Iterable[Task], finder: LineFinder, line: Submission, printed: str | None = None) -> str | None:
    """The newest job that belongs to a line; else the one with the id that sbatch printed, if it is in the run."""
    tasks = list(tasks)
    found = {task.job for task in tasks if (own := finder.find(task)) is not None and own.tag == line.tag}
    found = found or {task.job for task in tasks if task.job == printed and finder.is_here(task)}
    return max(found, key=int, default=None)


class WaitingForSbatch:
    """Reports that sbatch takes long, and searches the queue for its job meanwhile."""

    def __init__(self, run: RunFolder, line: Submission) -> None:
        self._run, self._line = run, line
        self._is_reported = False

    def __call__(self, seconds: float) -> str | None:
        """The id of the job if Slurm has it. `seconds`: since the call."""
        if not self._is_reported:
            self._is_reported = True
            print_note(
                f"sbatch has not answered for {seconds:.0f} s; still waiting (up to {SBATCH_SECONDS:.0f} s; Ctrl-C "
                f"leaves the run as it is, and `{self._run.resume_command}` completes it)"
            )
        try:
            job = _job_among(queue(), LineFinder(self._run, Submissions(self._run).read()), self._line)
        except EmbedkitError:
            return None
        if job is not None:
            print_note(f"{self._line.job_name} was submitted all the same: job {job} (sbatch does not return)")
        return job


def what_may_be_there(run: RunFolder, line: Submission | None, before: Sequence[str]) -> str:
    """Say which jobs may exist, how to look, and what to type.

    Args:
        run: the run.
        line: the line of the sbatch whose answer was lost; None if sbatch was not called.
        before: ids of the jobs of the chain that were submitted before it.
    """
    status, cancel = (command_line([program(), name, str(run.path)]) for name in ("status", "cancel"))
    lines = []
    if line is not None:
        lines += [
            f"a job may be queued or running: name {run.name}.{line.job_name}, comment {COMMENT_PREFIX}{line.tag}",
            "to look for it: squeue --me -o '%i %j %T %k'",
        ]
    if before:
        lines.append(f"jobs {job_list(before)}, submitted before it, are left as they are")
    lines += [
        f"to complete the chain: {run.resume_command} (it finds the job first)",
        f"to see what is there: {status}",
        f"to end all of it: {cancel}",
    ]
    return "\n".join(lines)


def _show_warnings(lines: Sequence[str]) -> None:
    """Show what sbatch printed to stderr."""
    for line in lines:
        print_note(line if line.startswith("sbatch:") else f"sbatch: {line}")
