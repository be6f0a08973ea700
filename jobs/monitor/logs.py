"""The logs of a run's jobs: the error line, the lines of the newest attempt, and new lines as they are written."""

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from embedkit.run import RunFolder

TAIL_BYTES = 1 << 16
"""How much of a long log's end is read. Engines write a lot when they start, and little later."""
TICK_SECONDS = 0.5

FIRST_LINE = re.compile(r" INFO (?:job \S+ on \S+, start \d+|started: process \d+)$")
"""The first line of an attempt, as a Slurm job and under `embedkit run`. slurmstepd's lines contain "job", too."""
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+"
EMBEDKIT_ERROR = re.compile(rf"^{STAMP} ERROR (.*)")
SLURM_ERROR = re.compile(r"^(?:slurmstepd(?:-\S+)?:|srun:|\[\d{4}-\d\d-\d\dT[\d:.]+\]) error: (.*)")
"""An error that Slurm's daemon writes into a task's log; the second form is that of Slurm 26.05."""
EXCEPTION = re.compile(r"^(?:[a-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)(?:: .*)?$")
OTHER_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL|[Ee]rror|not found|[Pp]ermission denied|Killed)\b")
OUT_OF_MEMORY = ("exceeded memory limit", "oom_kill", "oom-kill", "Out Of Memory", "out of memory")
"""What Slurm's daemon writes into a task's log when it kills the task for its memory use."""


def selected(run: RunFolder, names: Collection[str], stages: Collection[str]) -> list[Path]:
    """The existing logs with these names (`embed-00017`) or of these stages; all logs if neither is given."""
    found = sorted(run.logs.glob("*.log"))
    if not names and not stages:
        return found
    return [path for path in found if path.stem in names or path.stem.partition("-")[0] in stages]


def newest_attempt(path: Path) -> list[str]:
    """The lines of a log's newest attempt, within its last 64 KB; none if there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL_BYTES, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    begins = [number for number, line in enumerate(lines) if FIRST_LINE.search(line)]
    return lines[begins[-1] :] if begins else lines


def local_process(path: Path) -> int | None:
    """The id of the process that made the newest attempt, if `embedkit run` started it; None for a Slurm job."""
    begin = next(iter(newest_attempt(path)), "")
    found = re.search(r"started: process (\d+)$", begin)
    return int(found[1]) if found else None


def error_line(lines: Sequence[str]) -> str | None:
    """Find the line that says why a job failed, without its time stamp; None if there is none.

    The order of preference: embedkit's own error, Slurm's, the last exception, any line that looks like an error.
    """
    for pattern in (EMBEDKIT_ERROR, SLURM_ERROR, EXCEPTION):
        found = [match for line in lines if (match := pattern.search(line))]
        if found:
            return found[-1][pattern.groups].strip()  # group 1, or the whole match if the pattern has no group
    errors = [line for line in lines if OTHER_ERROR.search(line)]
    return errors[-1].strip() if errors else None


def embedkit_error(lines: Sequence[str]) -> str | None:
    """The last error that embedkit itself logged, without its time stamp; None if there is none."""
    found = [match[1] for line in lines if (match := EMBEDKIT_ERROR.search(line))]
    return found[-1] if found else None


def says_out_of_memory(path: Path) -> bool:
    """Whether the log says that Slurm killed the newest attempt for its memory use."""
    return any(text in line for line in newest_attempt(path) for text in OUT_OF_MEMORY)


def follow(paths: Callable[[], Sequence[Path]], last: int, is_over: Callable[[], bool]) -> Iterator[tuple[Path, str]]:
    """Yield lines of logs as they are written, each with the path of its log.

    Args:
        paths: returns the logs; called repeatedly, since some logs appear later.
        last: how many lines to yield first of each log that exists already.
        is_over: returns whether nothing more will be written; the logs are read once more after that.
    """
    read: dict[Path, int] = {}
    for path in paths():
        lines, read[path] = _complete_lines(path, _size(path) - TAIL_BYTES)
        yield from ((path, line) for line in lines[len(lines) - min(last, len(lines)) :])
    over = False
    while not over:
        over = is_over()
        for path in paths():
            lines, read[path] = _complete_lines(path, read.get(path, 0))
            yield from ((path, line) for line in lines)
        if not over:
            time.sleep(TICK_SECONDS)


def _complete_lines(path: Path, start: int) -> tuple[list[str], int]:
    """Complete lines from byte `start` on, and where the next begins. A log that is shorter than that is a new file."""
    start = start if 0 <= start <= _size(path) else 0
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
    except OSError:
        return [], start
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), start + len(whole)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
