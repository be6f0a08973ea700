"""Whether the records of a run show that a task has ended: its result, or the exit record of its last attempt."""

import math
from pathlib import Path

from embedkit.run import RunFolder
from jobs.records.attempts import Attempts
from jobs.records.submission import Submission, seconds_since_epoch
from jobs.slurm import job_id


def shards_of(line: Submission, index: int | None) -> tuple[int, ...]:
    """The shards of a task; all shards of an array whose task has no index."""
    return tuple(line.index_of) if index is None else line.shards_of(index)


def shows_end(run: RunFolder, line: Submission, index: int | None, before: float = math.inf) -> bool:
    """Whether the records show the end of a task of a recorded job.

    Args:
        run: the run.
        line: the line of the job, with its id.
        index: the index of the task; None for a job that is no array.
        before: it must have ended before this time: seconds since the epoch.
    """
    return all(
        _result_is_there(run, line, shard, before) or _wrote_its_end(run, line, shard, before)
        for shard in shards_of(line, index) or (None,)
    )


def _result_is_there(run: RunFolder, line: Submission, shard: int | None, before: float) -> bool:
    results: dict[str, Path] = {"prepare": run.plan, "preflight": run.preflight, "merge": run.success}
    path = results.get(line.stage) if shard is None else run.shard_manifest(shard)
    try:
        return path is not None and seconds_since_epoch(line.at) <= path.stat().st_mtime < before
    except FileNotFoundError:
        return False


def _wrote_its_end(run: RunFolder, line: Submission, shard: int | None, before: float) -> bool:
    """Whether the last attempt of the job has an exit record. A task that was stopped may start again."""
    attempts = [one for one in Attempts(run, line.stage, shard).attempts() if job_id(one.job) == line.job]
    end = attempts[-1].exit_record if attempts else None
    return end is not None and end.what != "stopped" and seconds_since_epoch(end.at) < before
