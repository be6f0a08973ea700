"""How long each attempt waited in the queue."""

from bisect import insort
from collections import defaultdict
from collections.abc import Mapping, Sequence

from jobs.records import seconds_since_epoch
from jobs.report.draft import Draft
from jobs.slurm import job_id


def queue_seconds(drafts: Sequence[Draft]) -> list[float | None]:
    """Seconds that each attempt waited although it could have run; None if it is not known since when.

    Waiting for a different job, for the array's own limit on tasks at once, or for a shard's turn in its task does not
    count.
    """
    tasks: dict[str, list[Draft]] = defaultdict(list)
    for draft in drafts:
        tasks[draft.job].append(draft)
    ends, held = _ends_of_jobs(drafts), _held_until(drafts)
    return [_queue_seconds(draft, tasks[draft.job], ends, held.get(at)) for at, draft in enumerate(drafts)]


def _queue_seconds(
    draft: Draft, same_task: Sequence[Draft], ends: Mapping[str, float], held_until: float | None
) -> float | None:
    if draft.started is None:
        return None
    if draft.is_later:
        return 0.0
    # The accounting knows since when it could run.
    if draft.record is not None and draft.record.eligible is not None:
        return max(draft.started - draft.record.eligible, 0.0)
    # Otherwise: since it was submitted, the attempts before it ended, and nothing held it back any more.
    before = [other.ended for other in same_task if other.ended is not None and _is_before(other, draft)]
    if draft.submission is None or (draft.restart and not before):
        return None
    waited_for = [ends[job] for job in draft.submission.dependency_ids if job in ends]
    held = [] if held_until is None else [held_until]
    since = max([seconds_since_epoch(draft.submission.at), *before, *waited_for, *held])
    return max(draft.started - since, 0.0)


def _is_before(other: Draft, draft: Draft) -> bool:
    """Whether `other` is an earlier attempt at the same task."""
    return other.restart is not None and draft.restart is not None and other.restart < draft.restart


def _ends_of_jobs(drafts: Sequence[Draft]) -> dict[str, float]:
    """When the last attempt of each job ended, by job id."""
    ends: dict[str, float] = {}
    for draft in drafts:
        if draft.ended is not None:
            ends[job_id(draft.job)] = max(draft.ended, ends.get(job_id(draft.job), draft.ended))
    return ends


def _held_until(drafts: Sequence[Draft]) -> dict[int, float]:
    """Until when its array's limit on tasks at once (`%8`) held back each attempt, by its position in `drafts`.

    A task may start as soon as fewer than the limit of those that started before it are still running.
    """
    arrays: dict[str, list[tuple[int, Draft]]] = defaultdict(list)
    for at, draft in enumerate(drafts):
        is_first = draft.submission is not None and draft.started is not None and not draft.is_later
        if is_first and draft.submission is not None and draft.submission.array:
            arrays[job_id(draft.job)].append((at, draft))
    held: dict[int, float] = {}
    ended: dict[tuple[str, int | None], float] = defaultdict(float)
    for draft in drafts:
        if draft.is_in_turn:
            ended[draft.job, draft.restart] = max(ended[draft.job, draft.restart], draft.ended or 0.0)
    for tasks in arrays.values():
        submission = tasks[0][1].submission
        limit = submission.tasks_at_once if submission is not None else None
        if limit is None:
            continue
        ends: list[float] = []
        for at, draft in sorted(tasks, key=lambda task: task[1].started or 0.0):
            if len(ends) >= limit:
                held[at] = ends[len(ends) - limit]
            end = draft.ended if draft.ended is not None else draft.started or 0.0
            insort(ends, max(end, ended.get((draft.job, draft.restart), 0.0)))
    return held
