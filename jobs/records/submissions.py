"""`submissions.jsonl`: every sbatch of a run, recorded before the call and after it.

The line before the call has a tag, which the job carries in its comment. So a job is found again by its tag even if the
command that submitted it was killed before it could record the job's id. Where a site changes comments, it is found by
its name and its working folder.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from embedkit.documents import decode_line, encode_line
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage import fsync_folder, names_file
from jobs.profiles import Stage
from jobs.records.find_line import LineFinder
from jobs.records.submission import Submission
from jobs.slurm import Task, chosen_cluster


@dataclass(frozen=True)
class LiveTask:
    """A queued or running task of a run.

    Attributes:
        task: the task as Slurm reports it.
        stage: its stage.
        shards: its shards.
        after: the ids of the jobs that it was to wait for.
        at_once: how many tasks of its job may run at once; 1 for a job that is no array.
    """

    task: Task
    stage: Stage
    shards: tuple[int, ...] = ()
    after: tuple[str, ...] = ()
    at_once: int = 1


class Submissions:
    """Reads and appends to a run's `submissions.jsonl`."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._path: Path = run.submissions

    def read(self) -> list[Submission]:
        """All lines, in order. A line that a kill cut short is skipped; EmbedkitError names any other damaged line."""
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") or line == b"\n":
                continue
            try:
                found.append(decode_line(line, Submission, self._path))
            except EmbedkitError as error:
                if number < len(lines) and lines[number] == b"\n":  # cut short, and closed by a later command
                    continue
                raise EmbedkitError(
                    f"line {number}: {error}; remove the line; jobs that it names are not found any more"
                ) from None
        return found

    def add(self, submission: Submission) -> None:
        """Append a line durably."""
        is_new = not self._path.exists()
        with names_file(self._path), self._path.open("ab") as file:
            if file.tell() and not self._path.read_bytes().endswith(b"\n"):
                file.write(b"\n\n")  # closes a line that a kill cut short
            file.write(encode_line(submission))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            fsync_folder(self._path.parent)

    def add_answer(
        self, line: Submission, what: Literal["submitted", "cancelled", "refused"], job: str | None
    ) -> Submission:
        """Append what became of a call of sbatch, at the time of its first line; returns the line."""
        answer = msgspec.structs.replace(line, what=what, job=job)
        self.add(answer)
        return answer

    def on_chosen_cluster(self) -> list[Submission]:
        """The lines whose jobs may be on the cluster that Slurm's commands ask."""
        return [line for line in self.read() if _may_be_on(line, chosen_cluster())]

    def live(self, queue: list[Task]) -> list[LiveTask]:
        """The tasks of the queue that belong to this run.

        They are known by their job id, the tag in their comment, or their name and working folder.
        """
        finder = LineFinder(self._run, self.on_chosen_cluster())
        found = [(task, finder.find(task)) for task in queue]
        return [
            LiveTask(
                task, line.stage, _shards(task, line), line.dependency_ids, line.tasks_at_once or len(line.indices) or 1
            )
            for task, line in found
            if line is not None
        ]

    def unanswered(self) -> list[Submission]:
        """The lines before an sbatch after which neither an id nor a refusal was recorded: such a job may exist."""
        lines = self.on_chosen_cluster()
        settled = {line.tag for line in lines if line.what != "asked"}
        return [line for line in lines if line.tag not in settled]

    def jobs(self, stage: Stage) -> list[str]:
        """The ids of all jobs submitted for a stage, oldest first."""
        lines = [line for line in self.read() if line.stage == stage and _may_be_on(line, chosen_cluster())]
        return [line.job for line in lines if line.what == "submitted" and line.job]

    def last(self, stage: Stage) -> Submission | None:
        """The newest submission of a stage."""
        found = [line for line in self.read() if line.stage == stage and line.what == "submitted"]
        return found[-1] if found else None


def _may_be_on(line: Submission, cluster: str) -> bool:
    """Whether a job may be on a cluster: the numbers of jobs on two clusters may be the same."""
    return not line.clusters or not cluster or line.clusters == cluster


def _shards(task: Task, line: Submission) -> tuple[int, ...]:
    """The shards of a task in the queue; all shards of the array if squeue does not report the task's index."""
    if task.index is None:
        return tuple(line.index_of)
    return line.shards_of(task.index)
