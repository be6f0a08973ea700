"""Find the line of `submissions.jsonl` that a task of Slurm belongs to: by its id, its tag, or its name and folder."""

import math
import os
import re
from collections.abc import Sequence

from embedkit.run import RunFolder
from jobs.profiles import STAGES
from jobs.records.own_records import CLOCKS_SECONDS
from jobs.records.submission import Submission, seconds_since_epoch
from jobs.slurm import Task, array_indices

TAG = re.compile(r"embedkit-([0-9a-f]{12})(?![0-9a-f])")
"""The tag in a comment, to which a site may have added words of its own."""
TAG_OF_SCRIPT = re.compile(r"-([0-9a-f]{12})\.sh$")
"""The tag in the path of a job's script, `logs/slurm/embed-<tag>.sh`: a site may cut comments and rename jobs."""
JOB_NAME = rf"({'|'.join(STAGES)})(?:-(?:job-)?(\d+))?$"
"""The name of a job after that of its run: its stage, and the first shard of a job that is no array."""


class LineFinder:
    """Finds the line that a task of Slurm belongs to."""

    def __init__(self, run: RunFolder, lines: Sequence[Submission]) -> None:
        self._run = run
        self._lines = [line for line in lines if line.what != "cancelled"]  # which may include only some of the tasks
        self._by_tag = {line.tag: line for line in self._lines}
        self._by_job = {line.job: line for line in self._lines if line.job is not None}
        self._name = re.compile(rf"{re.escape(run.name)}\.{JOB_NAME}")

    def find(self, task: Task) -> Submission | None:
        """The line of a task; None if it does not belong to the run."""
        tag = TAG.search(task.comment) or TAG_OF_SCRIPT.search(task.command)
        if tag is not None:
            return self._by_tag.get(tag[1])
        is_here = self.is_here(task)
        line = self._by_job.get(task.job)
        if line is not None:
            # Otherwise it is a job that got the same id years later.
            return line if not task.job_name or is_here or self._name.match(task.job_name) else None
        name = self._name.search(task.job_name)  # a site may have put words before it
        return self._by_name(task, name[1], name[2]) if name is not None and is_here else None

    def _by_name(self, task: Task, stage: str, shard: str | None) -> Submission | None:
        """The newest line of a stage or shard whose job's id was never recorded."""
        named = [line for line in self._by_tag.values() if line.stage == stage and _has_shard(line, shard)]
        before = math.inf if task.submitted is None else task.submitted + CLOCKS_SECONDS
        lost = [line for line in named if line.job is None and seconds_since_epoch(line.at) < before]
        return lost[-1] if lost else None

    def is_here(self, task: Task) -> bool:
        """Whether the task's working folder is the run's."""
        return bool(task.folder) and os.path.realpath(task.folder) == os.path.realpath(self._run.path)


def _has_shard(line: Submission, shard: str | None) -> bool:
    """Whether a line is of the shard in the name of a job; True if the name has none."""
    return shard is None or bool(line.shards and int(shard) in array_indices(line.shards))
