"""The logs of a run's jobs: which line of one matters, what its newest start wrote, and all of them as they grow."""

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from embedkit.run import RunFolder

TAIL_BYTES = 1 << 16
"""The end of a log is enough for one that lives long: an engine says much at its start."""
TICK_SECONDS = 0.5

START = re.compile(r" INFO (?:job \S+ on \S+, start \d+|started: process \d+)$")
"""What a job writes first into its log, on a cluster and here; slurmstepd's lines have the word job in them, too."""
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+"
OURS = re.compile(rf"^{STAMP} ERROR (.*)")
SLURMS = re.compile(r"^(?:slurmstepd(?:-\S+)?:|srun:|\[\d{4}-\d\d-\d\dT[\d:.]+\]) error: (.*)")
"""Slurm's daemon in a task's log; the second form is 26.05's."""
RAISED = re.compile(r"^(?:[a-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)(?:: .*)?$")
OTHERS = re.compile(r"\b(?:ERROR|CRITICAL|FATAL|[Ee]rror|not found|[Pp]ermission denied|Killed)\b")
OUT_OF_MEMORY = ("exceeded memory limit", "oom_kill", "oom-kill", "Out Of Memory", "out of memory")
"""What Slurm's own daemon writes into a task's log when it ends it for its memory."""


def selected(run: RunFolder, names: Collection[str], stages: Collection[str]) -> list[Path]:
    """The logs that there are, of these names (`embed-00017`) or stages; all of them if neither is asked for."""
    found = sorted(run.logs.glob("*.log"))
    if not names and not stages:
        return found
    return [path for path in found if path.stem in names or path.stem.partition("-")[0] in stages]


def newest_start(path: Path) -> list[str]:
    """The lines of a log's newest start, as far as they are in its last 64 KB; none if there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL_BYTES, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    begins = [number for number, line in enumerate(lines) if START.search(line)]
    return lines[begins[-1] :] if begins else lines


def local_process(path: Path) -> int | None:
    """The process that wrote a log's newest start, if `embedkit run` started it; None for a job of Slurm."""
    begin = next(iter(newest_start(path)), "")
    found = re.search(r"started: process (\d+)$", begin)
    return int(found[1]) if found else None


def error_line(lines: Sequence[str]) -> str | None:
    """The line that says why a job failed, without its time; None if no line does.

    embedkit's own error before Slurm's word, that before the last exception, that before whatever looks like an error.
    """
    for pattern in (OURS, SLURMS, RAISED):
        found = [match for line in lines if (match := pattern.search(line))]
        if found:
            return found[-1][pattern.groups].strip()  # its group, or all of it if it has none
    errors = [line for line in lines if OTHERS.search(line)]
    return errors[-1].strip() if errors else None


def own_error(lines: Sequence[str]) -> str | None:
    """The last error that embedkit itself logged, without its time; None if there is none."""
    found = [match[1] for line in lines if (match := OURS.search(line))]
    return found[-1] if found else None


def says_out_of_memory(path: Path) -> bool:
    """Whether the newest start of a log was ended for its memory."""
    return any(said in line for line in newest_start(path) for said in OUT_OF_MEMORY)


def follow(paths: Callable[[], Sequence[Path]], last: int, is_over: Callable[[], bool]) -> Iterator[tuple[Path, str]]:
    """Lines of logs as they grow, each with the log that it is from; of what is there already the last ones.

    Args:
        paths: the logs, asked again and again: some come later.
        last: how many lines of each log that is there at first.
        is_over: whether nothing more is written; asked before a last look.
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
    """Whole lines from byte `start` on, and where the next begins; a log that is shorter by now was made anew."""
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
