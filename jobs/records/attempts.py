"""How each start of a job on a cluster went: one line when it starts, one when it ends, if it still could.

From these lines come two limits that need no accounting: a job that is told to stop again and again without getting
anything done is not started for ever, and a shard that fails the same way three times is not run again by itself.
"""

import os
import re
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from embedkit.documents.codec import decode_line, encode_line
from embedkit.documents.schema import FORMAT, Document
from embedkit.errors import EmbedkitError
from embedkit.job import current_job
from embedkit.run import RunFolder
from jobs.profiles.schema import Stage
from jobs.records.log_names import log_name
from jobs.records.submissions import now

LIMIT = 3
"""Starts without progress before a job is left alone."""
NO_EXIT_RECORD = "it ended without a word (killed from outside?)"


AttemptEvent = Literal["started", "finished", "stopped", "cancelled", "failed"]


class Attempt(Document, frozen=True):
    """One line: `done` counts what is durable, chunks of a shard or parts; `why` is set where it failed or stopped.

    `cpu_seconds` and `peak_bytes` are what the process and its children used until then; None in `started`.
    """

    format: int
    what: AttemptEvent
    at: str
    job: str
    restart: int
    node: str
    done: int
    why: str
    cpu_seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Start:
    """One start of a job, and how it ended; a start without a last word has ended "failed" once it is over."""

    first: Attempt
    last: Attempt | None

    @property
    def outcome(self) -> str:
        """The last word's kind."""
        return "failed" if self.last is None else self.last.what

    @property
    def why(self) -> str:
        """Why it failed, so that the same failure reads the same: the first line, without addresses."""
        text = NO_EXIT_RECORD if self.last is None else self.last.why
        return re.sub(r"0x[0-9a-f]+", "0x", text.partition("\n")[0])


class Attempts:
    """The lines of one job or shard, `logs/embed-00017.attempts.jsonl`."""

    def __init__(self, run: RunFolder, stage: Stage, shard: int | None = None) -> None:
        self._path: Path = run.logs / f"{log_name(stage, shard)}.attempts.jsonl"

    def add(self, what: AttemptEvent, done: int, why: str, with_use: bool = True) -> None:
        """Append a line. It explains and decides nothing that counts, so a disk that is full is no reason to fail.

        `with_use`: what this process used was for this alone.
        """
        cpu_seconds, peak_bytes = used() if with_use and what != "started" else (None, None)
        job = current_job()
        line = encode_line(
            Attempt(
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
            )
        )
        try:
            with self._path.open("ab") as file:
                file.write(line)
        except OSError:
            return

    def starts(self) -> list[Start]:
        """Every start, oldest first; lines that cannot be read are left out."""
        starts: dict[tuple[str, int], Start] = {}
        for line in self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []:
            try:
                attempt = decode_line(line, Attempt, self._path)
            except EmbedkitError:
                continue
            key = (attempt.job, attempt.restart)
            if attempt.what == "started":
                starts[key] = Start(attempt, None)
            elif key in starts:
                starts[key] = Start(starts[key].first, attempt)
        return list(starts.values())

    def stops_without_progress(self, done: int) -> int:
        """How many starts right before this one were told to stop, one after another, with no more done than now."""
        count = 0
        for start in reversed(self.starts()[:-1]):
            if start.outcome != "stopped" or start.first.done != done:
                break
            count += 1
        return count

    def repeat_failure(self) -> str | None:
        """Why the last starts failed if they failed the same way LIMIT times and got nothing done; else None."""
        newest = [start for start in self.starts() if start.outcome not in ("stopped", "cancelled")][-LIMIT:]
        same = len({(start.outcome, start.why, start.first.done) for start in newest}) == 1
        return newest[-1].why if len(newest) == LIMIT and same and newest[-1].outcome == "failed" else None


def failed_preflight(run: RunFolder) -> str | None:
    """Why the newest preflight failed, if one did and none went well."""
    starts = [] if run.preflight.exists() else Attempts(run, "preflight").starts()
    return starts[-1].why if starts and starts[-1].outcome == "failed" and starts[-1].last is not None else None


def used() -> tuple[float, int]:
    """CPU seconds of this process and the children it has waited for, and bytes of memory at the peak.

    The peak is this process's and its largest child's, added up: no less than what was used at once by the two.
    """
    times = os.times()
    own = psutil.Process().memory_info().rss  # ru_maxrss begins at the parent's
    with suppress(OSError, AttributeError):
        own = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    spent = times.user + times.system + times.children_user + times.children_system
    return round(spent, 2), own + children
