"""The attempts of a run's jobs, put together from files, and from the accounting where there is one. Pure functions.

Files come first: an attempt's events, then what it left in its shard's folder. The accounting widens an attempt's time
to that of its allocation, and knows of attempts that were killed before they could write anything.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from embedkit.documents import Device
from jobs.monitor import one_line
from jobs.profiles import Stage
from jobs.records import NO_EXIT_RECORD, Place, Submission
from jobs.report.draft import Draft
from jobs.report.observations import LOCAL, AttemptFiles, AttemptObservations
from jobs.report.outcome import set_ends
from jobs.report.schema import AttemptReport, Unit
from jobs.report.waits import queue_seconds
from jobs.slurm import JobRecord, explain_exit, job_id

CLOCKS = 5.0
"""Seconds by which the clocks of a node and of the accounting may differ."""
MEBIBYTE = 1 << 20


def unit_of(observed: AttemptObservations) -> Unit:
    """The unit of device time: GPUs if any were requested or the engine needs them, else workers."""
    gpus = any(line.gpus for line in observed.submissions) or any(record.gpus for record in observed.records or ())
    return "gpu" if gpus or observed.device == "cuda" else "worker"


def attempts_of(observed: AttemptObservations) -> list[AttemptReport]:
    """Put together all attempts, by stage and shard, oldest first."""
    # One draft per attempt that left files, or events, or both.
    drafts = _from_files(observed)
    # Each draft gets its record in the accounting; records without a draft become drafts.
    drafts += _match_records(drafts, observed)
    # What was submitted for it, how many shards shared its task, and when it started.
    _add_submissions(drafts, observed)
    # How each attempt ended and when, which depends on the next attempt at the same shard.
    lanes = _lanes(drafts)
    for lane in lanes.values():
        set_ends(lane, observed)
    # How long each waited, which depends on the ends of others.
    waits = {id(draft): wait for draft, wait in zip(drafts, queue_seconds(drafts), strict=True)}
    unit = unit_of(observed)
    order = sorted(lanes, key=lambda place: (place[0], -1 if place[1] is None else place[1]))
    return [_report(draft, waits[id(draft)], unit, observed) for place in order for draft in lanes[place]]


def _from_files(observed: AttemptObservations) -> list[Draft]:
    """One draft per attempt in an attempts file or in a shard's folder, or per stage that ran outside Slurm."""
    drafts = [
        Draft(place=place, job=attempt.job, restart=attempt.restart, attempt=attempt)
        for place, attempts in observed.attempts.items()
        for attempt in attempts
    ]
    known = {(draft.place, draft.job, draft.restart): draft for draft in drafts}
    for shard, left in observed.files.items():
        place: Place = ("embed", shard)
        for files in left:
            # Attempts outside Slurm all have the same name, and no events.
            draft = known.get((place, files.job, files.restart)) if files.job != LOCAL else None
            if draft is None:
                drafts.append(Draft(place=place, job=files.job, restart=files.restart, files=files))
            elif draft.files is None or files.finished:
                draft.files = files
    for stage, (started, ended) in observed.local_stages.items():
        if not observed.attempts.get((stage, None)):
            local = AttemptFiles(job=LOCAL, restart=0, node="", started=started, ended=ended, finished=True)
            drafts.append(Draft(place=(stage, None), job=LOCAL, restart=0, files=local))
    return drafts


def _match_records(drafts: Sequence[Draft], observed: AttemptObservations) -> list[Draft]:
    """Give each draft its record in the accounting. Returns drafts for the attempts that only the accounting knows."""
    unmatched: dict[str, list[JobRecord]] = defaultdict(list)
    for record in observed.records or ():
        if record.started is not None:
            unmatched[record.name].append(record)

    # Shards that share an array task share its record.
    tasks: dict[tuple[str, int], list[Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.job in unmatched and draft.restart is not None:
            tasks[draft.job, draft.restart].append(draft)

    # If the accounting has a record of every start, they are in order. Else the record of an attempt is the newest that
    # started before the attempt's first event, and one whose record was purged gets none: a later record began later.
    starts = {job: sorted(own, key=lambda record: record.started or 0.0) for job, own in unmatched.items()}
    newest_restart = dict(sorted(tasks))
    for (job, restart), same in sorted(tasks.items()):
        first = min((time for time in (draft.first_event for draft in same) if time is not None), default=None)
        fitting = [r for r in unmatched[job] if first is not None and (r.started or 0.0) <= first + CLOCKS]
        if len(starts[job]) == newest_restart[job] + 1:
            fitting = [starts[job][restart]]
        if fitting:
            newest = max(fitting, key=lambda record: record.started or 0.0)
            unmatched[job].remove(newest)
            for draft in same:
                draft.record = newest

    submissions = _by_job(observed)
    return [
        Draft(place=(submissions[record.job].stage, shard), job=job, restart=None, record=record)
        for job, records in unmatched.items()
        for record in records
        if record.job in submissions
        for shard in _shards_of(submissions[record.job], record.index)
    ]


def _by_job(observed: AttemptObservations) -> Mapping[str | None, Submission]:
    return {line.job: line for line in observed.submissions if line.what == "submitted"}


def _shards_of(line: Submission, index: int | None) -> tuple[int | None, ...]:
    """The shards that one task of a submission begins with; (None,) for a job without shards."""
    shards = line.shards_of(index)
    return (shards[: line.workers] if line.in_turn else shards) or (None,)


def _add_submissions(drafts: Sequence[Draft], observed: AttemptObservations) -> None:
    """Set each draft's submission, how it shared its task with other shards, and its start."""
    submissions = _by_job(observed)
    tasks: dict[tuple[str, int | None], list[Draft]] = defaultdict(list)
    for draft in drafts:
        draft.submission = submissions.get(job_id(draft.job))
        if draft.job != LOCAL and draft.restart is not None and draft.place[0] == "embed":
            tasks[draft.job, draft.restart].append(draft)
    for same in tasks.values():
        _set_sharing(same)
    for draft in drafts:
        # The accounting knows when the node was allocated, which is before the first event.
        allocated = draft.record.started if draft.record is not None and not draft.is_later else None
        draft.started = min((time for time in (draft.first_event, allocated) if time is not None), default=None)


def _set_sharing(same: Sequence[Draft]) -> None:
    """Set how the attempts in one start of an array task of embed shared it."""
    line = same[0].submission
    at_once = line.workers if line is not None and line.in_turn else len(same)
    for place, draft in enumerate(sorted(same, key=lambda draft: draft.first_event or 0.0)):
        draft.shared_by, draft.at_once, draft.is_later = len(same), at_once, place >= at_once


def _lanes(drafts: Sequence[Draft]) -> dict[Place, list[Draft]]:
    """The attempts at each stage or shard, oldest first; those without a known start come last."""
    lanes: dict[Place, list[Draft]] = defaultdict(list)
    for draft in sorted(drafts, key=lambda draft: (draft.started is None, draft.started or 0.0)):
        lanes[draft.place].append(draft)
    return lanes


def _report(draft: Draft, queued: float | None, unit: Unit, observed: AttemptObservations) -> AttemptReport:
    """Take each number from the best source that has it: the exit record, the submission, the accounting."""
    stage, shard = draft.place
    record, submission, exit_record = draft.record, draft.submission, draft.exit_record
    wall = None if draft.started is None or draft.ended is None else max(draft.ended - draft.started, 0.0)
    gpus = _gpus(draft, observed.device) if unit == "gpu" else None
    devices = gpus if unit == "gpu" else 1.0 if stage == "embed" else None
    cpus = submission.cpus if submission is not None else None
    cpus = cpus or (record.cpus if record is not None else None) or None
    memory = submission.mem * MEBIBYTE if submission is not None and submission.mem else None
    if memory is None and record is not None:
        memory = record.memory_requested or None
    cpu_seconds = exit_record.cpu_seconds if exit_record is not None else None
    if cpu_seconds is None and record is not None and record.cpu_seconds is not None:
        cpu_seconds = record.cpu_seconds / draft.shared_by
    peak = exit_record.peak_bytes if exit_record is not None else None
    if peak is None and record is not None and draft.shared_by == 1:
        peak = record.memory
    return AttemptReport(
        stage=stage,
        shard=shard,
        job=draft.job,
        restart=draft.restart,
        node=_node(draft),
        outcome=draft.outcome,
        why=_why(draft, observed.launcher_stages),
        started=draft.started,
        ended=draft.ended,
        ended_at_least=draft.ended_at_least,
        wall_seconds=wall,
        queue_seconds=queued,
        gpus=gpus,
        device_seconds=None if wall is None or devices is None else wall * devices,
        cpus_requested=None if cpus is None else cpus / draft.at_once,
        cpu_seconds=cpu_seconds,
        memory_requested=None if memory is None else memory // draft.at_once,
        memory_peak=peak,
    )


def _gpus(draft: Draft, device: Device) -> float:
    """GPUs of an attempt: the accounting's, else the requested ones, else the one that an engine on a GPU uses."""
    gpus = draft.record.gpus if draft.record is not None else 0
    gpus = gpus or (draft.submission.gpus if draft.submission is not None else 0)
    if not gpus and device == "cuda" and draft.place[0] in ("preflight", "embed"):
        return 1.0
    return gpus / draft.at_once


def _node(draft: Draft) -> str | None:
    if draft.attempt is not None:
        return draft.attempt.node
    if draft.record is not None and draft.record.node:
        return draft.record.node
    return (draft.files.node or None) if draft.files is not None else None


def _why(draft: Draft, launcher_stages: Sequence[Stage]) -> str | None:
    if draft.outcome not in ("stopped", "cancelled", "failed"):
        return None
    why = draft.attempt.why if draft.attempt is not None else NO_EXIT_RECORD
    record = draft.record if draft.record is not None and draft.record.is_over and draft.record.state else None
    if why == NO_EXIT_RECORD and record is not None:
        return _why_by_slurm(record, draft, draft.place[0] in launcher_stages)
    if draft.exit_record is not None:
        why = re.sub(r"0x[0-9a-f]+", "0x", one_line(draft.exit_record.why))
    return why.strip() or None


def _why_by_slurm(record: JobRecord, draft: Draft, has_launcher: bool) -> str:
    """Why an attempt ended that could not write it down, by its end state and exit code in the accounting."""
    ending = explain_exit(record.state, record.exit_code, has_launcher) if record.state != "CANCELLED" else None
    code = f" {record.exit_code}" if record.state == "FAILED" and record.exit_code else ""
    said = f"Slurm says {record.state}{code}"
    has_begun = draft.attempt is not None or draft.files is not None
    when = "it ended without an exit record" if has_begun else "it ended before embedkit started"
    if ending is not None:
        return f"{when}: {ending.sentence.format(nodes=record.node or 'the node')}; {said}"
    if not has_begun:
        return f"{when}; {said}"
    return f"{NO_EXIT_RECORD}; {said}"
