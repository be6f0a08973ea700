"""Find second copies: two jobs of one call of sbatch.

A site's wrapper makes them if it calls Slurm's sbatch again after a lost answer.
"""

from collections.abc import Iterable, Mapping

from jobs.records.submission import Submission
from jobs.slurm import Task, job_list


def second_copies(live: Iterable[tuple[Task, Submission | None]]) -> dict[str, str]:
    """The id of each copy, with that of the job that counts: the recorded one, else one that has started, the newest.

    `live`: the active tasks, each with its line.
    """
    by_tag: dict[str, dict[str, bool]] = {}
    recorded: dict[str, str | None] = {}
    for task, line in live:
        if line is not None:
            jobs = by_tag.setdefault(line.tag, {})
            jobs[task.job] = jobs.get(task.job, False) or not task.is_pending
            recorded[line.tag] = line.job
    copies: dict[str, str] = {}
    for tag, jobs in by_tag.items():
        own = recorded[tag]
        kept = own if own in jobs else max(jobs, key=lambda job: (jobs[job], int(job)))
        copies |= {job: kept for job in jobs if job != kept}
    return copies


def copies_note(copies: Mapping[str, str]) -> str:
    """Say which jobs are copies, and how to end them; "" if there are none."""
    if not copies:
        return ""
    jobs, kept = sorted(copies, key=int), sorted(set(copies.values()), key=int)
    end = f"scancel {' '.join(jobs)}"
    if len(jobs) == 1:
        return f"job {jobs[0]} is a second copy of job {kept[0]}: one call of sbatch made both. To end it: {end}"
    return (
        f"jobs {job_list(jobs)} are second copies of job{'s' * (len(kept) > 1)} {job_list(kept)}: the same calls of "
        f"sbatch made them. To end them: {end}"
    )
