"""`submissions.jsonl`: every sbatch of a run, written down before it is called and after.

A line before the call holds the tag that the job carries in its comment. So a job is found again, by its tag, though
the command that submitted it was killed before it could note the job's id.
"""

import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from embedkit.errors import EmbedkitError
from embedkit.files import fsync_folder
from embedkit.records import FORMAT, Document, decode_line, encode_line
from embedkit.runfolder import RunFolder
from jobs.profiles import Resources, Stage
from jobs.slurm import Task, array_indices

COMMENT = "embedkit-"


class Submission(Document, frozen=True):
    """One line. `asked` comes before sbatch, `submitted` after, `cancelled` where embedkit took back those tasks.

    `job` is None in `asked`. `array` is as sbatch took it, "" for a job that is no array; `time` is in minutes and
    `mem` in MB, None where the site's default holds; `cpus` and `gpus` are a task's.
    """

    format: int
    what: Literal["asked", "submitted", "cancelled"]
    at: str
    tag: str
    stage: Stage
    job: str | None
    array: str
    dependency: str
    why: str
    profile: str
    time: int | None
    mem: int | None
    cpus: int | None = None
    gpus: int = 0

    @property
    def indices(self) -> tuple[int, ...]:
        """The array's indices; empty for a job that is no array."""
        return array_indices(self.array) if self.array else ()

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Ids of the jobs that it waits for."""
        return tuple(re.findall(r":(\d+)", self.dependency))


@dataclass(frozen=True)
class LiveTask:
    """A queued or running task of a run, and the stage that it does."""

    task: Task
    stage: Stage


class Submissions:
    """Reads and appends to a run's `submissions.jsonl`."""

    def __init__(self, run: RunFolder) -> None:
        self._path: Path = run.submissions

    def read(self) -> list[Submission]:
        """All lines, in order; what a kill cut short is left out. Raises EmbedkitError naming any other bad line."""
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
                if number < len(lines) and lines[number] == b"\n":  # cut short, and closed by a later start
                    continue
                raise EmbedkitError(f"line {number}: {error}; take the line out, its jobs are found no more") from None
        return found

    def add(self, submission: Submission) -> None:
        """Append a line durably."""
        is_new = not self._path.exists()
        with self._path.open("ab") as file:
            if file.tell() and not self._path.read_bytes().endswith(b"\n"):
                file.write(b"\n\n")  # closes what a kill cut short
            file.write(encode_line(submission))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            fsync_folder(self._path.parent)

    def live(self, queue: list[Task]) -> list[LiveTask]:
        """Those of the queue's tasks that are this run's, found by job id or by the tag in their comment."""
        lines = self.read()
        by_job = {line.job: line.stage for line in lines if line.job is not None}
        by_tag = {COMMENT + line.tag: line.stage for line in lines}
        found = [(task, by_job.get(task.job, by_tag.get(task.comment))) for task in queue]
        return [LiveTask(task, stage) for task, stage in found if stage is not None]

    def jobs(self, stage: Stage) -> list[str]:
        """Ids of all jobs that were submitted for a stage, oldest first."""
        return [line.job for line in self.read() if line.stage == stage and line.what == "submitted" and line.job]

    def last(self, stage: Stage) -> Submission | None:
        """The newest submission of a stage."""
        found = [line for line in self.read() if line.stage == stage and line.what == "submitted"]
        return found[-1] if found else None


def new_submission(
    stage: Stage, array: str, dependency: str, why: str, profile: str, resources: Resources
) -> Submission:
    """The line before an sbatch."""
    return Submission(
        format=FORMAT,
        what="asked",
        at=now(),
        tag=secrets.token_hex(6),
        stage=stage,
        job=None,
        array=array,
        dependency=dependency,
        why=why,
        profile=profile,
        time=resources.time,
        mem=resources.mem,
        cpus=resources.cpus,
        gpus=resources.gpu_count,
    )


def now() -> str:
    """This moment, ISO 8601 in UTC to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def seconds_since_epoch(at: str) -> float:
    """A moment as `now` writes it, in seconds since the epoch."""
    return datetime.fromisoformat(at).timestamp()
