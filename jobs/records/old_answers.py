"""Find tasks that squeue still shows although they have ended: its answer may come from a cache.

Only tasks whose end the run has recorded are looked up. If one of them has ended, the whole answer is old, and so all
other tasks are looked up too.
"""

import time
from collections.abc import Collection, Sequence

from embedkit.run import RunFolder
from jobs.records.find_line import LineFinder
from jobs.records.log_names import ATTEMPTS_SUFFIX, log_name
from jobs.records.recorded_ends import shards_of, shows_end
from jobs.records.submission import Submission
from jobs.slurm import Task, look_up_shown

LEAVING_SECONDS = 60.0
"""For so long after its exit record, squeue may rightly show a task: its node is still busy with it."""


def separate_ended(
    run: RunFolder, lines: Sequence[Submission], shown: Sequence[Task]
) -> tuple[list[Task], tuple[str, ...]]:
    """The tasks that have not ended, as scontrol shows those it was asked about; and the names of the ended ones.

    Args:
        run: the run.
        lines: the lines of its submissions.
        shown: tasks of the run in squeue.
    """
    doubtful = _doubtful(run, lines, shown)
    if not doubtful:
        return list(shown), ()
    active = _still_active(doubtful)
    ended = [task for task in doubtful if task.name not in active and task.state != "COMPLETING"]
    if ended:
        asked = {task.name for task in doubtful}
        active |= _still_active([task for task in shown if task.name not in asked])
        doubtful = list(shown)
    asked = {task.name for task in doubtful}
    left = [active.get(task.name, task) for task in shown if task.name not in asked or task.name in active]
    old = [task for task in doubtful if task.name not in active and task.state != "COMPLETING"]
    old.sort(key=lambda task: (int(task.job), -1 if task.index is None else task.index))
    return left, tuple(task.name for task in old)


def _doubtful(run: RunFolder, lines: Sequence[Submission], shown: Sequence[Task]) -> list[Task]:
    """Tasks whose job embedkit has cancelled, or whose own records have shown their end for a while."""
    cancelled = {line.job for line in lines if line.what == "cancelled"}
    started = {path.name for path in run.logs.glob(f"*{ATTEMPTS_SUFFIX}")}  # one listing, not a look for each shard
    finder = LineFinder(run, lines)
    before = time.time() - LEAVING_SECONDS
    found = []
    for task in shown:
        line = finder.find(task)
        if line is None or line.job != task.job:
            continue
        names = [f"{log_name(line.stage, shard)}{ATTEMPTS_SUFFIX}" for shard in shards_of(line, task.index) or (None,)]
        if task.job in cancelled or (started.issuperset(names) and shows_end(run, line, task.index, before)):
            found.append(task)
    return found


def _still_active(tasks: Collection[Task]) -> dict[str, Task]:
    """Those of the tasks that have not ended, by name: as scontrol shows them, or as they are if it does not answer."""
    indices: dict[str, set[int | None]] = {}
    for task in tasks:
        indices.setdefault(task.job, set()).add(task.index)
    found = look_up_shown(indices) if indices else None
    if found is None:
        return {}
    exact = {task.name: task for task in found.active}
    whole = {task.job for task in found.active if task.index is None}  # scontrol may cut a long list of indices
    some = {task.job for task in found.active}
    return {
        task.name: exact.get(task.name, task)
        for task in tasks
        if task.name in exact or task.job in {*whole, *found.unanswered} or (task.index is None and task.job in some)
    }
