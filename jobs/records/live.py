"""Read which tasks of a run are queued or running. squeue alone is not enough to say that a task has ended.

squeue may answer from a cache, or through a wrapper of the site that leaves tasks out. So a task that was submitted,
has no end in its own records, and is not in squeue's answer is looked up by sacct and scontrol. So is a task that
squeue shows and whose end is recorded.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.profiles import Stage
from jobs.records.copies import copies_note, second_copies
from jobs.records.find_line import LineFinder
from jobs.records.old_answers import separate_ended
from jobs.records.recorded_ends import shards_of, shows_end
from jobs.records.submission import Submission, seconds_since_epoch
from jobs.records.submissions import LiveTask, Submissions
from jobs.slurm import MOST_JOBS, Task, all_jobs, has_ended, look_up, queue

SEARCH_SECONDS = 3600.0
"""For so long after an sbatch without an answer its job is searched for outside squeue."""
TaskKey = tuple[str, int | None]
"""The id of a job and the index of a task; None for a job that is no array."""


@dataclass(frozen=True)
class LiveTasks:
    """What is queued or running.

    Attributes:
        tasks: the tasks.
        unseen: names of those that squeue does not show and scontrol does.
        unanswered: ids of jobs that may run: squeue does not show them, and nothing else answered.
        found: ids of jobs whose sbatch gave no id, by the tag of their line.
        lost: names of jobs that may exist: sbatch gave no answer, squeue does not show them, scontrol does not answer.
        note: why squeue was not used; "" if it was.
        outdated: names of tasks that squeue still shows and that have ended.
        copies: ids of jobs that are second copies, each with that of the job that counts.
    """

    tasks: tuple[LiveTask, ...] = ()
    unseen: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    found: dict[str, str] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    note: str = ""
    outdated: tuple[str, ...] = ()
    copies: dict[str, str] = field(default_factory=dict)

    @property
    def outdated_note(self) -> str:
        """That squeue's answer is old, with the tasks that show it; "" if it is not."""
        if not self.outdated:
            return ""
        more = len(self.outdated) - MOST_JOBS
        names = ", ".join(self.outdated[:MOST_JOBS]) + (f" and {more} more" if more > 0 else "")
        verb = "has" if len(self.outdated) == 1 else "have"
        return f"squeue still shows {names}, which {verb} ended: its answer is old"

    @property
    def copies_note(self) -> str:
        """Which jobs are second copies, and how to end them; "" if there are none."""
        return copies_note(self.copies)

    @property
    def doubt(self) -> str:
        """Which jobs may run although Slurm does not say so, in words; "" if there are none."""
        doubts = []
        if self.unanswered:
            doubts.append(
                f"{' '.join(self.unanswered)} (squeue does not show them; neither scontrol nor sacct says that they "
                "have ended)"
            )
        if self.lost:
            doubts.append(
                f"{' '.join(self.lost)} (sbatch gave no id; squeue does not show them, and scontrol does not answer)"
            )
        return f"it is not known whether these jobs run: {', '.join(doubts)}" if doubts else ""


class LiveReader:
    """Reads the live tasks of a run, as often as needed. What is known to have ended is not looked up again."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._ended: set[TaskKey] = set()
        self._searched: set[str] = set()

    def read(self, without_squeue: bool = False) -> LiveTasks:
        """Read the live tasks now. This calls squeue; sacct and scontrol only for tasks that it should show or hide.

        Args:
            without_squeue: use scontrol alone if squeue does not answer.

        Raises:
            EmbedkitError: squeue does not answer, or answers in a format that was not requested.
        """
        record = Submissions(self._run)
        lines = record.on_chosen_cluster()
        finder = LineFinder(self._run, lines)
        note = ""
        try:
            shown = queue()
        except EmbedkitError as error:
            if not without_squeue:
                raise
            shown, note = self._from_scontrol(lines, error), str(error)
        seen = [task for task in shown if finder.find(task) is not None]
        active, outdated = (seen, ()) if note else separate_ended(self._run, lines, seen)
        missing, unanswered = self._look_up_missing(lines, seen)
        missing = [task for task in missing if finder.find(task) is not None]  # not a job that got an old id again
        searched, lost = self._search(record, finder, [*seen, *missing])
        unseen = [*missing, *(task for task in searched if not has_ended(task))]
        lines_found = [(task, finder.find(task)) for task in [*seen, *missing, *searched]]
        found = {line.tag: task.job for task, line in lines_found if line is not None and line.job is None}
        copies = second_copies((task, finder.find(task)) for task in [*active, *unseen])
        found = {tag: copies.get(job, job) for tag, job in found.items()}
        live = tuple(record.live([*active, *unseen]))
        return LiveTasks(live, tuple(task.name for task in unseen), unanswered, found, lost, note, outdated, copies)

    def _from_scontrol(self, lines: Sequence[Submission], error: EmbedkitError) -> list[Task]:
        """The active tasks in scontrol, if squeue does not answer."""
        try:
            return [task for task in all_jobs() if not has_ended(task)]
        except EmbedkitError as second:
            jobs = [line.job for line in lines if line.job is not None]
            raise EmbedkitError(
                f"{error}; {second}. It is not known whether jobs of this run are queued or running. Recorded are: "
                f"{' '.join(jobs) or 'none'}. To end them without embedkit: scancel {' '.join(jobs)}"
            ) from None

    def _look_up_missing(
        self, lines: Sequence[Submission], seen: Collection[Task]
    ) -> tuple[list[Task], tuple[str, ...]]:
        """Tasks that squeue does not show and that have not ended, and ids of jobs about which nothing answered."""
        shown = {(task.job, task.index) for task in seen}
        missing: dict[str, set[int | None]] = {}
        for (job, index), line in _newest_tasks(lines).items():
            if not {(job, index), (job, None)} & (shown | self._ended) and not shows_end(self._run, line, index):
                missing.setdefault(job, set()).add(index)
        if not missing:
            return [], ()
        found = look_up(missing)
        active = {(task.job, task.index) for task in found.active}
        asked = {(job, index) for job, indices in missing.items() if job not in found.unanswered for index in indices}
        self._ended |= {key for key in asked if not {key, (key[0], None)} & active}
        cancelled = {line.job for line in lines if line.what == "cancelled"}
        return list(found.active), tuple(job for job in found.unanswered if job not in cancelled)

    def _search(
        self, record: Submissions, finder: LineFinder, seen: Collection[Task]
    ) -> tuple[list[Task], tuple[str, ...]]:
        """Search for the jobs of calls of sbatch that gave no answer lately, where squeue does not show them.

        Returns their tasks, ended ones too, and the names of jobs for which scontrol did not answer.
        """
        known = {line.tag for task in seen if (line := finder.find(task)) is not None} | self._searched
        recent = time.time() - SEARCH_SECONDS
        sought = [line for line in record.unanswered() if seconds_since_epoch(line.at) > recent]
        tags = {line.tag: line.job_name for line in sought if line.tag not in known}
        if not tags:
            return [], ()
        try:
            jobs = all_jobs()
        except EmbedkitError:
            return [], tuple(f"{self._run.name}.{name}" for name in tags.values())
        self._searched |= tags.keys()  # one search is enough for a command that repeats
        return [task for task in jobs if (line := finder.find(task)) is not None and line.tag in tags], ()


def adopt_found(run: RunFolder, live: LiveTasks) -> list[Submission]:
    """Record the ids of jobs whose sbatch gave none; returns the lines. Only for a command that holds the submit lock.

    The time of a line is that of its sbatch, so that logs of the job count as written after it.
    """
    record = Submissions(run)
    adopted = []
    for line in record.unanswered():
        if line.tag in live.found:
            adopted.append(record.add_answer(line, "submitted", live.found[line.tag]))
    return adopted


def unended_jobs(run: RunFolder) -> tuple[str, ...]:
    """Ids of jobs whose end no record shows: they may run. For a machine that cannot ask Slurm."""
    lines = Submissions(run).read()
    cancelled = {line.job for line in lines if line.what == "cancelled"}
    newest = _newest_tasks(lines)
    ended = {(job, index) for (job, index), line in newest.items() if shows_end(run, line, index)}
    return tuple(dict.fromkeys(job for job, index in newest if job not in cancelled and (job, index) not in ended))


def _newest_tasks(lines: Sequence[Submission]) -> dict[TaskKey, Submission]:
    """The newest submitted task of each stage or shard: earlier ones had ended when it was submitted."""
    newest: dict[tuple[Stage, int | None], TaskKey] = {}
    line_of: dict[TaskKey, Submission] = {}
    for line in lines:
        if line.what != "submitted" or line.job is None:
            continue
        for index in line.indices or (None,):
            key = (line.job, index)
            line_of[key] = line
            newest |= dict.fromkeys([(line.stage, shard) for shard in shards_of(line, index) or (None,)], key)
    return {key: line_of[key] for key in newest.values()}
