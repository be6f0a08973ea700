"""Collect the observations of a run: its folder, squeue once, sacct once, and logs of tasks that may have failed."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import psutil

from embedkit.check.status import Status, StatusReader
from embedkit.documents import Preflight, read
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage import holder_of
from jobs.monitor.logs import embedkit_error, error_line, local_process, newest_attempt
from jobs.monitor.observations import RunObservations, names_of
from jobs.monitor.overview import make_overview
from jobs.monitor.schema import Overview
from jobs.records import (
    GROUP_LOG,
    Attempt,
    Attempts,
    LiveReader,
    LiveTask,
    Submission,
    Submissions,
    clock_errors,
    clock_notes,
    launcher_stages,
    log_name,
    own_records,
    seconds_since_epoch,
    with_right_times,
)
from jobs.slurm import JobRecord, has_slurm, history, suspensions

MOST_NAMES = 6
"""A note names so many tasks."""
OF_ONE_SHARD = re.compile(r" ERROR embed-\d+ failed: ")
"""A line in the log of an array task about one of its shards, which has its own exit record."""


class StatusCollector:
    """Collects the observations of a run, as often as needed. What cannot change any more is read only once."""

    def __init__(self, run: RunFolder, hung_after: float | None = None) -> None:
        """`hung_after`: quiet seconds after which a running shard is hung; None for a limit from the run's medians."""
        self._run = run
        self._hung_after = hung_after
        self._files = StatusReader(run)
        self._live_tasks = LiveReader(run)
        self._finished: dict[str, list[Attempt]] = {}

    def collect(self) -> Overview:
        """Observe the run now.

        This calls squeue and sacct once each, or neither if nothing was submitted; more for tasks that squeue should
        show or hide, and does not.
        """
        notes: list[str] = []
        submissions = Submissions(self._run).read()
        live = self._live(submissions, notes)  # before the files: a task that ends in between has written them
        records = self._records(submissions, notes)
        status = self._files.read()
        logs = {path.stem: path.stat().st_mtime for path in sorted(self._run.logs.glob("*.log"))}
        attempts = self._attempts(status, submissions)
        now = time.time()
        every_attempt = [attempt for lane in attempts.values() for attempt in lane]
        errors = clock_errors(every_attempt, submissions, records or (), now)
        attempts = {name: with_right_times(lane, errors) for name, lane in attempts.items()}
        observed = RunObservations(
            run=self._run,
            status=status,
            now=now,
            submissions=submissions,
            queue=live,
            records=records,
            attempts=attempts,
            errors=self._errors(status, submissions, live or (), attempts, logs, records or ()),
            logs=frozenset(logs),
            shared_logs=_shared_logs(submissions),
            here=self._here(status),
            notes=(*notes, *clock_notes(errors)),
            clock_errors=errors,
            hung_after=self._hung_after,
            start_seconds=self._start_seconds(),
            launcher_stages=launcher_stages(self._run, submissions),
        )
        overview = make_overview(observed)
        # A shard that was suspended is quiet, and not hung. This is asked of suspects only.
        hung = [shard.job for shard in overview.shards if shard.alert == "hung" and shard.slurm_state]
        if not hung or not (resumed := suspensions(hung)):
            return overview
        return make_overview(replace(observed, resumed=resumed))

    def _start_seconds(self) -> float | None:
        """Start-up of the engine in the preflight; None if there was none, or its file cannot be read."""
        try:
            return read(self._run.preflight, Preflight).start_seconds if self._run.preflight.exists() else None
        except EmbedkitError:
            return None

    def _live(self, submissions: Sequence[Submission], notes: list[str]) -> list[LiveTask] | None:
        if not submissions:
            return None
        if not has_slurm():
            notes.append("there is no Slurm on this machine, so it is not known whether jobs are queued or running")
            return None
        try:
            live = self._live_tasks.read()
        except EmbedkitError as error:
            notes.append(f"{error}; it is not known whether jobs are queued or running")
            return None
        if live.unseen:
            notes.append(f"squeue does not show {', '.join(live.unseen[:MOST_NAMES])}, which scontrol shows")
        if live.outdated:
            notes.append(live.outdated_note)
        if live.copies:
            notes.append(live.copies_note)
        if live.doubt:
            notes.append(live.doubt)
        return None if live.unanswered else list(live.tasks)

    def _records(self, submissions: Sequence[Submission], notes: list[str]) -> list[JobRecord] | None:
        if not submissions or not has_slurm():
            return None
        records = history(line.job for line in submissions if line.job is not None)
        if records is None:
            notes.append("sacct does not answer: causes come from the logs and the jobs' own records alone")
            return None
        return own_records(records, submissions)

    def _attempts(self, status: Status, submissions: Sequence[Submission]) -> dict[str, list[Attempt]]:
        """The attempts of every task. Those of finished shards are read once."""
        if not submissions:
            return {}
        found = {
            log_name(stage, None): Attempts(self._run, stage).attempts()
            for stage in ("prepare", "preflight", "merge", "analyze")
        }
        done = {shard.shard for shard in status.shards if shard.state == "done"}
        for shard in range(len(status.shards)) or sorted({shard for line in submissions for shard in line.index_of}):
            name = log_name("embed", shard)
            found[name] = self._finished.get(name) or Attempts(self._run, "embed", shard).attempts()
            if shard in done and found[name] and found[name][-1].outcome == "finished":
                self._finished[name] = found[name]
        return found

    def _errors(
        self,
        status: Status,
        submissions: Sequence[Submission],
        live: Sequence[LiveTask],
        attempts: Mapping[str, Sequence[Attempt]],
        logs: Mapping[str, float],
        records: Sequence[JobRecord],
    ) -> dict[str, str]:
        """The error line of each log whose task needs one.

        These are the tasks that are not done, not in the queue, and have no exit record with a cause. A log counts only
        if it was written after its task was last submitted. The log of an array task with several shards counts for
        those of them whose own log has no error line: what ended all of them at once is only there.
        """
        # Tasks that need no error line.
        explained = {log_name("embed", shard.shard) for shard in status.shards if shard.state == "done"}
        for name, own in attempts.items():
            if own and own[-1].exit_record is not None and own[-1].exit_record.why:
                explained.add(name)
        explained |= {log_name(task.stage, shard) for task in live for shard in task.shards or (None,)}
        explained |= {"prepare"} if status.stage != "prepare" else set()
        explained |= {"merge"} if status.stage == "done" else set()
        explained |= {"analyze"} if self._run.is_analyzed() else set()

        submitted = {name: seconds_since_epoch(line.at) for line in submissions for name in names_of(line)}
        shared = _shared_logs(submissions)
        submitted |= {log: submitted[name] for name, log in shared.items()}
        exit_codes = _exit_codes(submissions, records)
        errors = {}
        for name, written in logs.items():
            if name not in explained and written >= submitted.get(name, 0.0):
                lines = newest_attempt(self._run.logs / f"{name}.log")
                if name.startswith(GROUP_LOG):
                    lines = [line for line in lines if not OF_ONE_SHARD.search(line)]
                # Outside Slurm only embedkit's own errors count: a person who interrupts a run needs no traceback.
                line = error_line(lines, exit_codes.get(name, "")) if submissions else embedkit_error(lines)
                if line is not None:
                    errors[name] = line
        of_task = {name: errors[log] for name, log in shared.items() if log in errors and name not in explained}
        return of_task | errors

    def _here(self, status: Status) -> frozenset[str]:
        """Tasks that processes outside Slurm work on, by their run locks."""
        locks = {
            "prepare": self._run.prepare_lock,
            "merge": self._run.merge_lock,
            "analyze": self._run.analysis_lock,
        }
        here = {stage for stage, path in locks.items() if (holder := holder_of(path)) is not None and not holder.job}
        queue_holder = holder_of(self._run.run_lock)
        if queue_holder is None:
            return frozenset(here)
        if not queue_holder.is_here:
            # Its processes cannot be checked from here, so every shard that has begun counts as running.
            here |= {log_name("embed", shard.shard) for shard in status.shards if shard.state == "started"}
            return frozenset(here)
        for shard in status.shards:
            name = log_name("embed", shard.shard)
            process = local_process(self._run.logs / f"{name}.log") if shard.state != "done" else None
            if process is not None and psutil.pid_exists(process):
                here.add(name)
        return frozenset(here)


def _shared_logs(submissions: Sequence[Submission]) -> dict[str, str]:
    """The log of the whole array task of each shard that shares one, by the name of the shard's own log."""
    found: dict[str, str] = {}
    for line in submissions:
        if line.what == "submitted" and line.stage == "embed":
            found |= {log_name("embed", shard): line.log_of(index) for shard, index in line.index_of.items()}
    return {name: log for name, log in found.items() if log.startswith(GROUP_LOG)}


def _exit_codes(submissions: Sequence[Submission], records: Sequence[JobRecord]) -> dict[str, str]:
    """The exit code of the newest record of each task, by the name of each of its logs."""
    by_job = {line.job: line for line in submissions if line.what == "submitted"}
    codes: dict[str, str] = {}
    for record in records:
        line = by_job.get(record.job)
        if line is not None:
            shards = line.shards_of(record.index) or (None,)
            codes |= {log_name(line.stage, shard): record.exit_code for shard in shards}
            codes[line.log_of(record.index)] = record.exit_code
    return codes
