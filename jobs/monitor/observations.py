"""What was observed of a run at one moment, and the same sorted by task."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from embedkit.check.status import Status
from embedkit.run import RunFolder
from jobs.monitor.classify import PREFLIGHT_FAILED, PREPARE_FAILED, Queue, TaskObservations, classify
from jobs.profiles import Stage
from jobs.records import Attempt, LiveTask, Submission, log_name, seconds_since_epoch
from jobs.slurm import JobRecord, job_id


@dataclass(frozen=True, kw_only=True)
class RunObservations:
    """All that was observed of a run. Tasks are named as their logs (`embed-00017`).

    Attributes:
        now: seconds since the epoch.
        queue: the run's tasks in squeue; None if Slurm was not queried or did not answer.
        records: the run's own records in sacct; None if there is no accounting.
        attempts: the attempts of each task, oldest first, with right times.
        errors: the error line of each log that has one.
        logs: the logs that exist.
        shared_logs: the log of the whole array task, of each task that shares one with others.
        here: tasks that processes outside Slurm work on, such as those of `embedkit run`.
        notes: what could not be observed, for people.
        hung_after: quiet seconds after which a shard is hung; None for a limit from the medians.
        start_seconds: start-up of the engine in the preflight; None if there was no preflight.
        clock_errors: seconds by which the clocks of nodes are ahead (negative: behind), of those that are wrong.
        launcher_stages: the stages whose profile has a `launcher`.
        resumed: when Slurm last suspended or resumed a task, seconds since the epoch, by its name `123_17`.
    """

    run: RunFolder
    status: Status
    now: float
    submissions: Sequence[Submission] = ()
    queue: Sequence[LiveTask] | None = None
    records: Sequence[JobRecord] | None = None
    attempts: Mapping[str, Sequence[Attempt]]
    errors: Mapping[str, str]
    logs: frozenset[str] = frozenset()
    shared_logs: Mapping[str, str] = field(default_factory=dict)
    here: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    hung_after: float | None = None
    start_seconds: float | None = None
    clock_errors: Mapping[str, float] = field(default_factory=dict)
    launcher_stages: Sequence[Stage] = ()
    resumed: Mapping[str, float] = field(default_factory=dict)

    @property
    def queue_state(self) -> Queue:
        """Whether squeue answered."""
        return "none" if not self.submissions else "answered" if self.queue is not None else "silent"


PREPARE: Stage = "prepare"
PREFLIGHT: Stage = "preflight"


class ObservationsByTask:
    """The observations of a run, sorted by task."""

    def __init__(self, observed: RunObservations) -> None:
        self._observed = observed
        self._newest: dict[str, Submission] = {}
        """The newest submission of each task."""
        self._by_job: dict[str, Submission] = {}
        self._index_of: dict[str, dict[int, int | None]] = {}
        """The array index of each shard, by job."""
        cancelled = [line for line in observed.submissions if line.what == "cancelled"]
        self._cancelled = {(line.job, name) for line in cancelled for name in names_of(line)}
        self._records: dict[tuple[str, int | None], list[JobRecord]] = {}
        self._live: dict[str, LiveTask] = {}
        self._starts = {(one.job, one.restart) for lane in observed.attempts.values() for one in lane}
        """The starts of tasks of which an attempt is known."""
        self.parallel = 1
        """How many shards may run at once."""
        for line in observed.submissions:
            if line.what == "submitted" and line.job is not None:
                self._by_job[line.job] = line
                self._index_of[line.job] = line.index_of
                self._newest |= dict.fromkeys(names_of(line), line)
                if line.stage == "embed":
                    self.parallel = line.shards_at_once or len(line.index_of) or 1
                    if line.in_turn and line.array:  # its tasks may be fewer
                        self.parallel = min(self.parallel, len(line.indices) * line.workers)
        for record in observed.records or ():
            self._records.setdefault((record.job, record.index), []).append(record)
        for live in observed.queue or ():
            for name in [log_name(live.stage, shard) for shard in live.shards or (None,)]:
                # A task may be queued again while it still runs: then it counts as running.
                if name not in self._live or not live.task.is_pending:
                    self._live[name] = live
        self._failed: dict[str, str] = {}
        """What to say of the jobs that wait for a failed prepare or preflight, by that job."""
        for stage, why in ((PREPARE, PREPARE_FAILED), (PREFLIGHT, PREFLIGHT_FAILED)):
            task = self.task(stage, None, self.is_done(stage))
            job = task.submission.job if task.submission is not None else None
            if job is not None and classify(task, observed.now, observed.queue_state).state == "failed":
                self._failed[job] = why

    def is_done(self, stage: Stage) -> bool:
        """Whether a stage that is one job is done, by the files of the run."""
        run, reached = self._observed.run, self._observed.status.stage
        if stage == "prepare":
            return reached != "prepare"
        if stage == "preflight":
            return run.preflight.exists()
        return reached == "done" and (stage != "analyze" or run.is_analyzed())

    def names(self, stage: Stage) -> list[str]:
        """The tasks of a stage that were ever submitted."""
        return sorted(name for name, line in self._newest.items() if line.stage == stage)

    def task(self, stage: Stage, shard: int | None, is_done: bool, problem: str | None = None) -> TaskObservations:
        """Join all that was observed of one task."""
        name = log_name(stage, shard)
        submission = self._newest.get(name)
        job = submission.job if submission is not None and submission.job is not None else ""
        return TaskObservations(
            name=name,
            is_done=is_done,
            problem=problem,
            error=self._observed.errors.get(name),
            submission=submission,
            was_cancelled=(job, name) in self._cancelled,
            live=self._live.get(name),
            records=self._records_of(job, shard),
            attempts=[attempt for attempt in self._observed.attempts.get(name, ()) if job_id(attempt.job) == job],
            runs_here=name in self._observed.here,
            blocked_by=self._blocked_by(submission) if submission is not None and not is_done else "",
            has_launcher=stage in self._observed.launcher_stages,
            behind=self._behind(submission, shard, name in self._live),
        )

    def _behind(self, line: Submission | None, shard: int | None, is_live: bool) -> Sequence[int]:
        """The shards that come before a shard in its task, whose workers take shard after shard.

        Empty if the shard has begun since the task's last start, or, when the task has ended, none has.
        """
        if line is None or line.job is None or shard is None or not line.in_turn:
            return ()
        group = line.shards_of(self._index_of[line.job].get(shard))
        newest = {
            other: own[-1]
            for other in group
            if (own := self._observed.attempts.get(log_name("embed", other), ())) and job_id(own[-1].job) == line.job
        }
        restart = max((attempt.restart for attempt in newest.values()), default=0)
        begun = {other: attempt for other, attempt in newest.items() if attempt.restart == restart}
        if not begun:
            return group[: line.workers] if is_live and shard not in group[: line.workers] else ()
        if shard in begun:
            return ()
        return [other for other, attempt in begun.items() if attempt.exit_record is None] or list(begun)

    def _blocked_by(self, line: Submission) -> str:
        """Which failed stage keeps a job from its work, directly or by a job in between; "" if none does."""
        for job in line.dependency_ids:
            parent = self._by_job.get(job)
            found = self._failed.get(job) or (self._blocked_by(parent) if parent is not None else "")
            if found:
                return found
        return ""

    def attempts(self, stage: Stage, shard: int | None) -> int:
        """How many attempts there were at a task, with those that only the accounting knows of."""
        name = log_name(stage, shard)
        known = Counter(job_id(attempt.job) for attempt in self._observed.attempts.get(name, ()))
        for job, line in self._by_job.items():
            if line.stage == stage and (shard is None or shard in self._index_of[job]):
                records = list(enumerate(self._records_of(job, shard)))
                if line.in_turn:  # a start of the task was none of the shard if it was another one's turn
                    known[job] += sum(
                        (one.name, restart) not in self._starts for restart, one in records if one.started
                    )
                    continue
                started = sum(record.started is not None for _, record in records)
                known[job] = max(known[job], started)
        return known.total()

    def _records_of(self, job: str, shard: int | None) -> list[JobRecord]:
        """The accounting's records of the task of a job that embeds a shard."""
        index = None if shard is None else self._index_of.get(job, {}).get(shard)
        return self._records.get((job, index), [])

    def gpu_hours(self, name: str, shard: int, changed: float | None, runs: bool) -> float | None:
        """GPU hours of all attempts at a shard; None if there were none, or they had no GPUs.

        An attempt without an exit record ended when the accounting says, or else not before its last write.

        Args:
            name: the task's name.
            shard: the shard.
            changed: when the shard's newest attempt last wrote a chunk, seconds since the epoch.
            runs: whether the newest attempt is running.
        """
        hours, gpus = 0.0, 0
        attempts = self._observed.attempts.get(name, ())
        for number, attempt in enumerate(attempts):
            job = job_id(attempt.job)
            line = self._by_job.get(job)
            # sacct has one record per start of a job, in the same order.
            records = self._records_of(job, shard)
            record = records[attempt.restart] if attempt.restart < len(records) else None
            count = line.gpus // line.workers if line is not None else 0
            started, is_newest = seconds_since_epoch(attempt.started.at), number == len(attempts) - 1
            if attempt.exit_record is not None:
                ended = seconds_since_epoch(attempt.exit_record.at)
            elif is_newest and runs:
                ended = self._observed.now
            else:
                # The accounting has whole seconds, cut off: an attempt may seem to end before it started.
                recorded = record.ended if record is not None else None
                ended = max(started, recorded or 0.0, (changed if is_newest else None) or 0.0)
            gpus += count
            hours += count * max(ended - started, 0.0) / 3600
        return hours + self._hours_without_attempt(attempts, shard) if gpus else None

    def _hours_without_attempt(self, attempts: Sequence[Attempt], shard: int) -> float:
        """GPU hours of the starts of which only the accounting knows: Python never ran."""
        known = {(job_id(attempt.job), attempt.restart) for attempt in attempts}
        hours = 0.0
        for job in {job for job, _ in known}:
            line = self._by_job.get(job)
            records = self._records_of(job, shard) if line is not None else []
            for restart, record in enumerate(records):
                if line is None or (job, restart) in known or record.started is None or record.ended is None:
                    continue
                if not line.in_turn or (record.name, restart) not in self._starts:
                    hours += line.gpus / line.per_job * (record.ended - record.started) / 3600
        return hours


def names_of(line: Submission) -> list[str]:
    """The names of the tasks that a submission includes, as their logs are named."""
    return [log_name(line.stage, shard) for shard in line.index_of or (None,)]
