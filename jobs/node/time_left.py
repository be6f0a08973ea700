"""How much time a signal leaves this job, and what the time was spent on."""

import logging
import math
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

import psutil

from embedkit.embed import ChunkStatus
from embedkit.errors import EmbedkitError
from embedkit.job import current_job
from embedkit.run import RunFolder
from jobs.records import Submissions, recorded_profile
from jobs.slurm import JobTimes, job_times
from jobs.slurm_environment import script_started, start_and_end

log = logging.getLogger("embedkit")

ANSWER_SECONDS = 10.0
"""How long Slurm may take to answer: the time that is left passes meanwhile."""
LEAST_SECONDS = 60.0
"""The time that is left if Slurm does not answer: signal_seconds is at least this, and Slurm signals rather earlier."""
MARGIN_SECONDS = 15.0
"""Time to record the stop and to request the requeue. Slurm kills the job up to KillWait (30 s) after its limit."""
DELAY_SECONDS = 120.0
"""How long after its job's start a script may begin: a prolog may run first."""
EARLY_SECONDS = 75.0
"""How much earlier than signal_seconds before the limit Slurm may send the warning: it looks every 30 to 60 s."""
UNLIMITED_SECONDS = 60.0
"""How long a chunk may take to end if the signal is no warning of the time limit: a person wants the task to stop."""


@dataclass(frozen=True)
class TimeLeft:
    """The time of this job when a signal came, in seconds.

    after: since its start; limit: in all, None if unknown or without end; left: until it must end, None without a
    limit; is_preempted: Slurm preempts it; signal_seconds: the profile's, None if unknown; at: time.monotonic() then.
    """

    after: float
    limit: float | None = None
    left: float | None = None
    is_preempted: bool = False
    signal_seconds: int | None = None
    at: float = field(default_factory=time.monotonic)

    @property
    def by_limit(self) -> bool:
        """Whether the signal is the warning of the time limit."""
        if self.is_preempted or self.left is None or self.limit is None:
            return False
        return self.left <= (self.signal_seconds or LEAST_SECONDS) + EARLY_SECONDS

    def for_chunk(self, seconds_left: float | None) -> float:
        """Seconds that a task gets to end its chunk, which is expected to take `seconds_left` more (None: unknown).

        0 if the chunk does not fit: then the task stops at once.
        """
        usable = math.inf if self.left is None else self.left - MARGIN_SECONDS
        if not self.by_limit and not self.is_preempted:
            usable = min(usable, max(UNLIMITED_SECONDS, 2 * (seconds_left or 0.0)))
        return 0.0 if usable < max(seconds_left or 0.0, 1.0) else usable


def time_left(run: RunFolder) -> TimeLeft:
    """Ask Slurm how much time this job has left. Without an answer it is the least that a warning leaves."""
    times = _times()
    after = seconds_since_start()
    limit = times.seconds
    left = None
    if limit is not None and times.ends is not None:
        # The script began with its job, or some seconds after it. If the clocks say something else, those of node and
        # controller differ, and only the time since the script's start is known. A node's clock that is ahead looks
        # like a prolog: then the time left is taken for less than it is, which is the safe side.
        delay = time.time() - after - (times.ends - limit)
        left = times.ends - time.time() if -1 <= delay <= DELAY_SECONDS else limit - after
        after = limit - left
    elif times.started is None:
        left = LEAST_SECONDS
    return TimeLeft(after, limit, left, times.is_preempted, _signal_seconds(run))


def last_moment(run: RunFolder) -> float | None:
    """Until when this task has surely got no warning of its time limit, as a time of time.monotonic().

    None without a limit, or if Slurm does not answer.
    """
    times = time_left(run)
    if times.left is None or times.limit is None:
        return None
    return times.at + times.left - (times.signal_seconds or LEAST_SECONDS) - EARLY_SECONDS


def seconds_since_start() -> float:
    """Seconds since Slurm started this job's script.

    Without a launcher this process has replaced the script's shell. With one, this process began later: after `before`
    and the start of the image.
    """
    started = script_started()
    return time.time() - (psutil.Process().create_time() if started is None else started)


def _times() -> JobTimes:
    """Slurm's answer if it comes in time, else what the job's environment says."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(job_times, current_job().name).result(ANSWER_SECONDS)
    except (EmbedkitError, FutureTimeout) as error:
        known = start_and_end()
        least = f": at least {LEAST_SECONDS:.0f} s" if known is None else ""
        log.warning("scontrol does not say how much time is left (%s)%s", error or "no answer", least)
        return JobTimes() if known is None else JobTimes(*known)
    finally:
        pool.shutdown(wait=False)


def _signal_seconds(run: RunFolder) -> int | None:
    """signal_seconds of the newest submission of embed; None if it cannot be read."""
    try:
        line = Submissions(run).last("embed")
        return None if line is None else recorded_profile(run, line).stages["embed"].signal_seconds
    except (EmbedkitError, OSError, ValueError):
        return None


def describe_warning(times: TimeLeft, needs: Sequence[float | None], is_finished: bool) -> str:
    """What a warning means for the chunk in hand: `USR2: 125 s left, the chunk in hand needs about 20 s more: ...`.

    Args:
        times: the time that is left.
        needs: seconds that each task still needs for its chunk; None if it has not begun one.
        is_finished: whether the tasks get this time.
    """
    left = "no time limit" if times.left is None else f"{max(times.left, 0.0):.0f} s left"
    if times.left is not None and not is_finished:
        left += f" ({MARGIN_SECONDS:.0f} s are kept for the requeue)"
    preempted = " (preemption)" if times.is_preempted else ""
    known = [need for need in needs if need is not None]
    if not known:
        chunk = "the first chunk has not begun"
        return f"USR2{preempted}: {left}, {chunk}: {'it is embedded if it fits' if is_finished else 'too late for it'}"
    end = "it is finished first" if is_finished else "that does not fit"
    return f"USR2{preempted}: {left}, the chunk in hand needs about {max(known):.0f} s more: {end}"


def spent(received: signal.Signals, time_left: TimeLeft, status: ChunkStatus | None) -> str:
    """The arithmetic of a stop: `start 45 s, one chunk 33 s, warned after 55 s of 180 s`.

    Args:
        received: the signal.
        time_left: the job's time when it came.
        status: what the task does; None if it has not begun to start an engine.
    """
    now, after = time.monotonic(), f"{time_left.after:.0f} s"
    began = time_left.at - time_left.after
    if status is None or status.first is None:
        parts = [f"start more than {now - began:.0f} s"]
    else:
        parts = [f"start {max(status.first - began, 0.0):.0f} s"]
    if status is not None:
        elapsed = 0.0 if status.first is None else now - status.began
        parts.append(f"one chunk {'more than ' * (elapsed > status.seconds)}{max(status.seconds, elapsed):.0f} s")
    if time_left.by_limit:
        parts.append(f"warned after {after} of {time_left.limit:.0f} s")
    elif time_left.is_preempted:
        parts.append(f"stopped after {after} by preemption")
    elif received == signal.SIGTERM:
        parts.append(f"stopped after {after} by preemption or a requeue")
    else:
        parts.append(f"stopped after {after} by {received.name}")
    return ", ".join(parts)


def advice(received: signal.Signals, time_left: TimeLeft) -> str:
    """The setting that gives a task more time before it is stopped; "" if a person stopped it."""
    seconds = time_left.signal_seconds
    if time_left.by_limit:
        smaller = seconds is not None and seconds > LEAST_SECONDS
        return ": a longer time (rerun --time)" + f", or a smaller signal_seconds ({seconds} now)" * smaller
    if time_left.is_preempted or received == signal.SIGTERM:
        return ": a partition or QOS that is not preempted so soon"
    return ""
