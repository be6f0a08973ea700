"""Find the line of `submissions.jsonl` that a task of Slurm belongs to: by its id, its tag, or its name and folder."""

import math
import os
import re
from collections.abc import Sequence
from datetime import datetime

from embedkit.run import RunFolder
from jobs.profiles import STAGES
from jobs.records.submission import Submission
from jobs.slurm import Task, array_indices

TAG = re.compile(r"embedkit-([0-9a-f]{12})(?![0-9a-f])")
"""The tag in a comment, to which a site may have added words of its own."""
JOB_NAME = re.compile(rf"({'|'.join(STAGES)})(?:-(?:job-)?(\d+))?")
"""The name of a job without that of its run: its stage, and the first shard of a job that is no array."""

CLOCK_SECONDS = 120.0
"""The controller's clock may be so much behind that of the machine that submitted."""


class LineFinder:
    """Finds the line that a task of Slurm belongs to."""

    def __init__(self, run: RunFolder, lines: Sequence[Submission]) -> None:
        self._run = run
        self._lines = [line for line in lines if line.what != "cancelled"]  # which may include only some of the tasks
        self._by_tag = {line.tag: line for line in self._lines}
        self._by_job = {line.job: line for line in self._lines if line.job is not None}

    def find(self, task: Task) -> Submission | None:
        """The line of a task; None if it does not belong to the run."""
        tag = TAG.search(task.comment)
        if tag is not None:
            return self._by_tag.get(tag[1])
        by_job = self._by_job.get(task.job)
        name = JOB_NAME.fullmatch(task.job_name.removeprefix(f"{self._run.name}."))
        is_named = name is not None and task.job_name.startswith(f"{self._run.name}.")
        if not task.job_name or is_named or self._is_here(task):
            if by_job is not None or name is None:
                return by_job
            return self._by_name(task, name[1], name[2]) if is_named and self._is_here(task) else None
        return None  # a job that got the same id years later

    def _by_name(self, task: Task, stage: str, shard: str | None) -> Submission | None:
        """The newest line of a stage or shard whose job's id was never recorded."""
        named = [line for line in self._by_tag.values() if line.stage == stage and _has_shard(line, shard)]
        before = math.inf if task.submitted is None else task.submitted + CLOCK_SECONDS
        lost = [line for line in named if line.what == "asked" and datetime.fromisoformat(line.at).timestamp() < before]
        return lost[-1] if lost else None

    def _is_here(self, task: Task) -> bool:
        """Whether the task's working folder is the run's."""
        return bool(task.folder) and os.path.realpath(task.folder) == os.path.realpath(self._run.path)


def _has_shard(line: Submission, shard: str | None) -> bool:
    """Whether a line is of the shard in the name of a job; True if the name has none."""
    return shard is None or bool(line.shards and int(shard) in array_indices(line.shards))
