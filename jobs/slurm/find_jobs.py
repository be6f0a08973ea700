"""Look jobs up without squeue: by scontrol, which asks the controller, and by sacct.

squeue may be cached or wrapped on a site. A job that it does not show has ended only if one of these agrees.
"""

import os
import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from embedkit.errors import EmbedkitError
from jobs.slurm.client import ARRAY, Task, array_indices, is_unknown_job, run_slurm, seconds_of, unreadable
from jobs.slurm.states import BROKEN_OFF, ENDED

SINGLE_CALLS = 5
"""For more jobs than this, one call that lists all jobs takes less than a call for each."""
SETTLE_SECONDS = 6.0
"""How long cancelled tasks may take to leave their running state."""
Tasks = Mapping[str, Collection[int | None]]
"""Indices of tasks by job id; None for a job that is no array."""


@dataclass(frozen=True)
class Found:
    """Tasks that scontrol shows as not ended, and the jobs about which nothing answered."""

    active: tuple[Task, ...] = ()
    unanswered: tuple[str, ...] = ()


def look_up(tasks: Tasks) -> Found:
    """Find which of these tasks have not ended. One call of sacct; scontrol only for those that it does not settle."""
    states = accounted_states(tasks)
    open_tasks = {
        job: {index for index in indices if states.get((job, index)) not in ENDED} for job, indices in tasks.items()
    }
    open_tasks = {job: indices for job, indices in open_tasks.items() if indices}
    found, unanswered = _shown(open_tasks)
    active = [task for task in found if not has_ended(task) and _is_among(task, open_tasks)]
    return Found(tuple(active), tuple(unanswered))


def look_up_shown(tasks: Tasks) -> Found:
    """Find which of the tasks that squeue shows have not ended. sacct counts only where scontrol does not answer.

    sacct says that a task has ended while its processes still end.
    """
    found, silent = _shown(tasks)
    states = accounted_states(silent)
    unanswered = [job for job in silent if any(states.get((job, index)) not in ENDED for index in tasks[job])]
    return Found(tuple(task for task in found if not has_ended(task) and _is_among(task, tasks)), tuple(unanswered))


def still_active(jobs: Collection[str], seconds: float = SETTLE_SECONDS) -> Found:
    """What is left of jobs that were just cancelled. Waits until they have ended or are completing."""
    until = time.monotonic() + seconds
    while True:
        found, unanswered = _shown(jobs)
        active = [task for task in found if not has_ended(task) and task.state != "COMPLETING" and task.job in jobs]
        if not active or time.monotonic() > until:
            return Found(tuple(active), tuple(unanswered))
        time.sleep(0.5)


def has_ended(task: Task) -> bool:
    """Whether scontrol shows a task as ended. A state that embedkit does not know counts as active."""
    return task.state in ENDED or task.state in BROKEN_OFF


def all_jobs(of_everyone: bool = False) -> list[Task]:
    """All tasks of this user, or of every user, that the controller knows, also those that ended some minutes ago.

    Raises EmbedkitError if scontrol does not answer with jobs.
    """
    text = run_slurm("scontrol", "-a", "show", "job", "-o")  # -a: jobs of hidden partitions too
    found = parse_jobs(text, None if of_everyone else os.getuid())
    if found is None and "no jobs in the system" not in text.lower():
        raise unreadable("scontrol", text.strip().partition("\n")[0])
    return found or []


def accounted_states(jobs: Iterable[str]) -> dict[tuple[str, int | None], str]:
    """The newest state of each task in the accounting; empty if there is none. Tasks may be missing for seconds."""
    ids = ",".join(sorted(jobs, key=int))
    try:
        text = run_slurm("sacct", "-X", "-n", "-P", "-j", ids, "-o", "JobID,State") if ids else ""
    except EmbedkitError:
        return {}
    return parse_states(text)


def find_in_accounting(name: str, folder: str, since: float, known: Collection[str] = ()) -> str | None:
    """The newest job of this name and working folder that was submitted since a time; None if none is recorded yet.

    since: seconds since the epoch; known: ids of other jobs.
    """
    start = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fields = "JobID,JobName,WorkDir,Submit"
    text = run_slurm("sacct", "-X", "-n", "-P", "-u", str(os.getuid()), "-S", start, "-o", fields)
    rows = [re.fullmatch(r"(\d+)(?:_[^|]*)?\|(.*)\|(.*)\|([^|]*)", line) for line in text.splitlines()]
    times = {
        row[1]: seconds_of(row[4]) or 0.0
        for row in rows
        if row is not None and row[2] == name and os.path.realpath(row[3]) == os.path.realpath(folder)
    }
    fitting = [job for job, submitted in times.items() if submitted >= since and job not in known]
    return max(fitting, key=int, default=None)


def parse_states(text: str) -> dict[tuple[str, int | None], str]:
    """Read `sacct -P -o JobID,State`: the first word of the state by job and index, `2_[4-9%2]` for each index."""
    states: dict[tuple[str, int | None], str] = {}
    for line in text.splitlines():
        row = re.fullmatch(r"(\d+)(?:_(?:(\d+)|\[([^]]*)\]))?\|([A-Z_]+)[^|]*\|?", line.strip())
        if row is None:
            continue
        job, index, waiting, state = row.groups()
        indices = array_indices(waiting) if waiting and ARRAY.fullmatch(waiting) else ()
        for number in indices or (None if index is None else int(index),):
            states[job, number] = state
    return states


def parse_jobs(text: str, user: int | None = None) -> list[Task] | None:
    """Read `scontrol show job -o`, one task per line, ended ones too; None if no line is a job.

    Lines that are no job, such as those of a banner, do not count. `user`: leave out the tasks of all other users.

    Raises EmbedkitError if a line of a job is cut short.
    """
    _, *lines = re.split(r"^[ \t]*(?=JobId=\d)", text, flags=re.MULTILINE)
    tasks: list[Task] = []
    for line in lines:
        fields = {
            name: value.strip()
            for name, value in re.findall(r"(?:^|\s)([A-Z]\w*)=(.*?)(?=\s+[A-Z][\w:/.]*=|\s*\Z)", line, flags=re.DOTALL)
        }
        if "JobState" not in fields:
            raise unreadable("scontrol", line.splitlines()[0])
        owner = re.search(r"\((\d+)\)", fields.get("UserId", ""))
        if user is not None and owner is not None and int(owner[1]) != user:
            continue
        index = fields.get("ArrayTaskId", "")
        begin, queued = seconds_of(fields.get("StartTime", "")), seconds_of(fields.get("SubmitTime", ""))
        tasks += [
            Task(
                job=fields.get("ArrayJobId", fields["JobId"]),
                index=number,
                state=fields["JobState"],
                reason=fields.get("Reason", ""),
                node=fields.get("NodeList", "").replace("(null)", ""),
                comment=fields.get("Comment", ""),
                account=fields.get("Account", ""),
                qos=fields.get("QOS", ""),
                start=begin,
                job_name=fields.get("JobName", ""),
                folder=fields.get("WorkDir", ""),
                submitted=queued,
                command=fields.get("Command", ""),
            )
            for number in (array_indices(index) if ARRAY.fullmatch(index) else (None,))
        ]
    return tasks if lines else None


def _shown(jobs: Collection[str]) -> tuple[list[Task], list[str]]:
    """Tasks of jobs in scontrol, ended ones too, and the jobs about which it did not answer."""
    if len(jobs) > SINGLE_CALLS:
        try:
            return all_jobs(of_everyone=True), []
        except EmbedkitError:
            return [], list(jobs)
    found: list[Task] = []
    unanswered: list[str] = []
    for number, job in enumerate(jobs):
        try:
            text = run_slurm("scontrol", "show", "job", "-o", job)
        except EmbedkitError as error:
            if is_unknown_job(str(error)):
                continue
            return found, [*unanswered, *list(jobs)[number:]]  # it does not answer for the others either
        try:
            tasks = parse_jobs(text)
        except EmbedkitError:
            tasks = None
        if tasks is None and not is_unknown_job(text):
            unanswered.append(job)
        found += tasks or []
    return found, unanswered


def _is_among(task: Task, tasks: Tasks) -> bool:
    """Whether a task is one of these. A task without an index is if its job is."""
    return task.job in tasks and (task.index is None or None in tasks[task.job] or task.index in tasks[task.job])
