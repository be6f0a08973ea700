"""How each attempt ended, and when."""

from collections.abc import Mapping, Sequence

from jobs.records import seconds_since_epoch
from jobs.report.draft import Draft
from jobs.report.observations import LOCAL, AttemptObservations
from jobs.report.schema import Outcome
from jobs.slurm import has_started

OUTCOMES_OF_SLURM: Mapping[str, Outcome] = {"COMPLETED": "finished", "CANCELLED": "cancelled", "PREEMPTED": "stopped"}
"""The outcome by Slurm's state, for attempts without an exit record; any other end state is a failure."""


def set_ends(lane: Sequence[Draft], observed: AttemptObservations) -> None:
    """Set the outcome and the end of each attempt in a lane: all attempts at one stage or shard, oldest first."""
    for at, draft in enumerate(lane):
        is_newest = at + 1 == len(lane)
        _set_end(draft, None if is_newest else lane[at + 1].started, is_newest, observed)
    _extend_by_adopted_chunks(lane)


def _set_end(draft: Draft, next_start: float | None, is_newest: bool, observed: AttemptObservations) -> None:
    exit_record, files, record = draft.exit_record, draft.files, draft.record
    draft.outcome = _outcome(draft, is_newest, observed)

    # Its own signs of life: the exit record, and the last file that it wrote.
    times = [seconds_since_epoch(exit_record.at)] if exit_record is not None else []
    if files is not None and files.ended is not None and (files.finished or exit_record is None):
        times.append(files.ended)
    is_exact = exit_record is not None or (files is not None and files.finished)

    if draft.outcome == "running":
        times, is_exact = [observed.now], True
    elif record is not None and record.ended is not None and not (is_exact and draft.is_in_turn):
        # The accounting knows the end. Inexact signs may be later, by a clock that differs: they are dropped.
        times, is_exact = [*(times[:1] if is_exact else []), record.ended], True
    elif not is_exact:
        # Add the last write to its log. Later than the next attempt's start, it is that attempt's write.
        restart = draft.restart if draft.restart is not None else -1
        written = observed.last_writes.get((draft.place, draft.job, restart))
        times += [] if written is None else [written]
        times = [time if next_start is None else min(time, next_start) for time in times]
    if times:
        draft.ended, draft.ended_at_least = max(*times, draft.started or 0.0), not is_exact


def _extend_by_adopted_chunks(lane: Sequence[Draft]) -> None:
    """Extend the first of two attempts to the time that its chunks took, if the second adopted them.

    This is for a first attempt whose end is not known exactly. It made all chunks that the second adopted, and so it
    ran at least as long as these took.
    """
    if len(lane) != 2:
        return
    first, second = lane
    if second.files is None or first.started is None or second.started is None:
        return
    if first.ended_at_least or first.ended is None:
        made = min(first.started + second.files.adopted_seconds, second.started)
        if made > (first.ended or first.started):
            first.ended, first.ended_at_least = made, True


def _outcome(draft: Draft, is_newest: bool, observed: AttemptObservations) -> Outcome:
    # Its own exit record.
    if draft.exit_record is not None and draft.exit_record.what != "started":
        return draft.exit_record.what
    # Its manifest.
    if draft.files is not None and draft.files.finished:
        return "finished"
    # The accounting.
    state = draft.record.state if draft.record is not None else ""
    if draft.record is not None and draft.record.is_over and state:
        return OUTCOMES_OF_SLURM.get(state, "failed")
    # A later attempt started, so this one was killed.
    if not is_newest:
        return "failed"
    # The queue.
    if draft.job != LOCAL and observed.live is not None:
        # A task whose node starts up does not run yet: an attempt of it is an earlier one.
        running = {live.task.name for live in observed.live if has_started(live.task.state)}
        return "running" if draft.job in running else "failed"
    return "running" if state else "unknown"
