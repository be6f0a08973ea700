"""The attempts of each job: one line in a file when an attempt starts, one when it ends, if it can still write it.

These lines are enough to enforce two limits without Slurm's accounting. A job that is stopped again and again without
progress is not requeued again. A shard that fails three times in the same way is submitted again only if it is named.
An attempt that was lost with its node or preempted is no failure of its shard.
"""

import os
import re
import resource
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from embedkit.documents import FORMAT, Document, decode_line, encode_line
from embedkit.errors import CanaryMoved, EmbedkitError, GpuDiffers, GpuHeld
from embedkit.job import current_job
from embedkit.run import RunFolder
from jobs.profiles import Stage
from jobs.records.log_names import ATTEMPTS_SUFFIX, log_name
from jobs.records.submission import now

MAX_ATTEMPTS_WITHOUT_PROGRESS = 3
"""After so many attempts without progress, a job is not started again automatically."""
NO_PROGRESS = "no-progress"
"""The error code of the attempt with which a job gave up for that reason."""
UNCOUNTED = "preempted-or-requeued"
"""The error code of a stop that its job did not cause: Slurm or a person takes the node for something else."""
NODE_FAULTS = (CanaryMoved.code, GpuDiffers.code, GpuHeld.code)
"""Error codes of failures that a different node may not have: a rerun stays away from the node."""
LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REQUEUED")
"""States in the accounting of an attempt that its shard did not end."""
NO_EXIT_RECORD = "it ended without an exit record (killed from outside?)"

EventKind = Literal["started", "finished", "stopped", "cancelled", "failed"]


class AttemptEvent(Document, frozen=True):
    """One line of an attempts file.

    `done` counts durable chunks of a shard, or parts of prepare. `why` is set if the attempt failed or was stopped, and
    `error_code` is the `code` of the error that ended it, "" if that error has none or an older version wrote the line.
    `cpu_seconds` and `peak_bytes` are what the process and its children used until then; None in a `started` event.
    """

    format: int
    what: EventKind
    at: str
    job: str
    restart: int
    node: str
    done: int
    why: str
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    error_code: str = ""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job: the event of its start, and its exit record, the event of its end.

    `exit_record` is None while the attempt runs, and for good if it was killed before it could write one.
    """

    started: AttemptEvent
    exit_record: AttemptEvent | None

    @property
    def job(self) -> str:
        """The job's name: `123`, `123_17`."""
        return self.started.job

    @property
    def restart(self) -> int:
        """How often Slurm had requeued the job before this attempt."""
        return self.started.restart

    @property
    def node(self) -> str:
        """The node it ran on."""
        return self.started.node

    @property
    def outcome(self) -> EventKind:
        """How it ended; "failed" if it wrote no exit record. Meaningless while it runs."""
        return "failed" if self.exit_record is None else self.exit_record.what

    @property
    def why(self) -> str:
        """Why it ended: the first line, without memory addresses, so that equal failures have equal texts."""
        text = NO_EXIT_RECORD if self.exit_record is None else self.exit_record.why
        return re.sub(r"0x[0-9a-f]+", "0x", text.partition("\n")[0])

    @property
    def error_code(self) -> str:
        """The `code` of the error that ended it; "" if there is none."""
        return "" if self.exit_record is None else self.exit_record.error_code

    @property
    def failure(self) -> tuple[str, str, int]:
        """What equal failures have in common. The seconds in the reason of NO_PROGRESS differ each time."""
        return self.outcome, self.error_code if self.error_code == NO_PROGRESS else self.why, self.started.done


class Attempts:
    """The attempts file of one job or shard, `logs/embed-00017.attempts.jsonl`."""

    def __init__(self, run: RunFolder, stage: Stage, shard: int | None = None) -> None:
        self._path: Path = run.logs / f"{log_name(stage, shard)}{ATTEMPTS_SUFFIX}"

    def add(self, what: EventKind, done: int, why: str, error_code: str = "", with_usage: bool = True) -> None:
        """Append an event. An error of the file system is ignored: the event explains, and no decision needs it.

        Args:
            what: the kind of event.
            done: durable chunks of the shard, or parts of prepare.
            why: why the attempt failed or was stopped; else "".
            error_code: the code of the error that ended it.
            with_usage: whether to add the CPU time and memory of this process: only if it worked for this job alone.
        """
        cpu_seconds, peak_bytes = usage() if with_usage and what != "started" else (None, None)
        job = current_job()
        line = encode_line(
            AttemptEvent(
                format=FORMAT,
                what=what,
                at=now(),
                job=job.name,
                restart=job.restart,
                node=job.node,
                done=done,
                why=why,
                cpu_seconds=cpu_seconds,
                peak_bytes=peak_bytes,
                error_code=error_code,
            )
        )
        try:
            with self._path.open("ab") as file:
                file.write(line)
        except OSError:
            return

    def attempts(self) -> list[Attempt]:
        """All attempts, oldest first. Lines that cannot be read are skipped."""
        found: dict[tuple[str, int], Attempt] = {}
        for line in self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []:
            try:
                event = decode_line(line, AttemptEvent, self._path)
            except EmbedkitError:
                continue
            key = (event.job, event.restart)
            if event.what == "started":
                found[key] = Attempt(event, None)
            elif key in found:
                found[key] = Attempt(found[key].started, event)
        return list(found.values())

    def has_begun(self) -> bool:
        """Whether the current attempt of this process's job has recorded its start."""
        newest, job = self.attempts()[-1:], current_job()
        return bool(newest) and (newest[0].job, newest[0].restart) == (job.name, job.restart)

    def stops_without_progress(self, done: int) -> int:
        """Count the attempts directly before the current one that were stopped, with no more done then than now.

        Preemptions and requeues by a person neither count nor end the count.
        """
        count = 0
        for attempt in reversed(self.attempts()[:-1]):
            if attempt.outcome == "stopped" and attempt.error_code == UNCOUNTED:
                continue
            if attempt.outcome != "stopped" or attempt.started.done != done:
                break
            count += 1
        return count

    def repeat_failure(self, final_states: Callable[[], Mapping[str, str]] = dict) -> str | None:
        """Why the newest attempts failed, if enough of them failed in the same way without progress; else None.

        Attempts that were lost with their node or preempted, faults of a node, stops and cancellations do not count.
        An attempt without an exit record was lost if Slurm started its job again. If it is the job's last, the
        accounting decides; without accounting it counts.

        Args:
            final_states: returns the state in which each job or task ended, by its name, from the accounting. It is
                called only if that decides.
        """
        attempts = self.attempts()
        restarts = {attempt.job: attempt.restart for attempt in attempts}  # the last one's
        own_ends = [
            attempt
            for attempt in attempts
            if attempt.outcome not in ("stopped", "cancelled")
            and attempt.error_code not in NODE_FAULTS
            and (attempt.exit_record is not None or attempt.restart == restarts[attempt.job])
        ]
        why = _repeated(own_ends)
        if why is None or all(attempt.exit_record is not None for attempt in _newest(own_ends)):
            return why
        states = final_states()
        return _repeated([one for one in own_ends if one.exit_record is not None or states.get(one.job) not in LOST])


def _newest(attempts: Sequence[Attempt]) -> Sequence[Attempt]:
    return attempts[-MAX_ATTEMPTS_WITHOUT_PROGRESS:]


def _repeated(attempts: Sequence[Attempt]) -> str | None:
    """Why the newest attempts failed, if they are enough and failed in the same way; else None."""
    newest = _newest(attempts)
    if len(newest) < MAX_ATTEMPTS_WITHOUT_PROGRESS or newest[-1].outcome != "failed":
        return None
    return newest[-1].why if len({attempt.failure for attempt in newest}) == 1 else None


def failed_preflight(run: RunFolder) -> str | None:
    """Why the newest preflight failed; None if it did not, or if any preflight of the run succeeded."""
    attempts = [] if run.preflight.exists() else Attempts(run, "preflight").attempts()
    newest = attempts[-1] if attempts else None
    return newest.why if newest is not None and newest.exit_record is not None and newest.outcome == "failed" else None


def usage() -> tuple[float, int]:
    """CPU seconds of this process and of the children it has waited for, and peak memory in bytes.

    The peak is the sum of this process's and its largest child's: at least what these two used at the same time.
    """
    times = os.times()
    own = psutil.Process().memory_info().rss  # ru_maxrss begins at the parent's
    with suppress(OSError, AttributeError):
        own = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))[0]) * 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    spent = times.user + times.system + times.children_user + times.children_system
    return round(spent, 2), own + children
