"""The logs of a run's jobs: the error line, the lines of the newest attempt, and new lines as they are written."""

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from embedkit.run import RunFolder
from jobs.slurm import is_not_found

TAIL_BYTES = 1 << 16
"""How much of a long log's end is read. Engines write a lot when they start, and little later."""
TICK_SECONDS = 0.5
LONGEST = 400
"""Characters of a cause to show; the rest is in the task's log."""

FIRST_LINE = re.compile(r" INFO (?:job \S+ on \S+, start \d+|started: process \d+)$")
"""The first line of an attempt, as a Slurm job and under `embedkit run`. slurmstepd's lines contain "job", too."""
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+"
EMBEDKIT_ERROR = re.compile(rf"^{STAMP} ERROR (.*)")
SLURM_ERROR = re.compile(r"^(?:slurmstepd(?:-\S+)?:|srun:|\[\d{4}-\d\d-\d\dT[\d:.]+\]) error: (.*)")
"""An error that Slurm's daemon writes into a task's log; the second form is that of Slurm 26.05."""
EXCEPTION = re.compile(r"^(?:[a-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)(?:: .*)?$")
NOT_FOUND = re.compile(
    r"[Nn]o such file or directory|command not found|: not found|[Pp]ermission denied|cannot execute|bad interpreter"
    r"|Exec format error|cannot open shared object file"
)
"""What a shell writes when it cannot start a program: exit codes 126 and 127."""
OTHER_ERROR = re.compile(rf"\b(?:ERROR|CRITICAL|FATAL|[Ee]rror|not found|Killed)\b|{NOT_FOUND.pattern}")
LEVELS = "TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL|SEVERE|PANIC"
LEVEL = re.compile(
    rf"\[?(?:{LEVELS})(?![=_\w])"  # Python's, vLLM's `INFO 11-26 ...`, `[INFO]`, NCCL's
    rf"|(?i:\[ *(?:{LEVELS}) *\])"
    rf"|(?i:(?:level|lvl|severity)=\"?(?:{LEVELS})\b)"  # logrus, as of podman
    rf"|(?i:\"(?:level|lvl|severity)\": *\"(?:{LEVELS})\b)"  # JSON
    r"|[DIWEF](?=\d{4} \d\d:\d\d:\d\d)"  # glog and torch: `I1126 11:11:24.487000 17459 file.py:53] ...`
    r"|[DIWEF](?= \S+:\d+\])"  # TensorFlow: `2026-11-26 11:11:24.487000: I external/x.cc:53] ...`
)
"""The level of a line in most formats, after PREFIX."""
PREFIX = re.compile(
    r"\s+|\x1b\[[\d;]*m|[|,:{]"
    r"|\d[\w:.,/+-]*"  # dates, times, numbers of processes
    r"|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec|Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b"
    r"|(?<=\d\d:\d\d:\d\d )[A-Za-z][\w.-]*(?= [\w./-]+(?:\[\d+\])?: )"  # the host in syslog
    r"|\([^()]*\)|\[[^\[\]]*\]:?"  # a process: `(EngineCore pid=1)`, `[rank0]:`
    r"|[A-Za-z][\w.-]*:\d+:\d+|NCCL\b|[A-Za-z][\w.-]*\[\d+\]:"  # host and process of NCCL and syslog
    rf"|(?!\S*(?i:error|exception|interrupt|exit|fail))[A-Za-z][\w./-]*:{{0,2}}(?=\s+\[?(?:{LEVELS})\b)"  # a program
    rf"|[-|] *(?!(?:{LEVELS})\b)[\w.]+(?= *[-|])|-"  # the name of a logger: ` - vllm.engine - `
    r"|(?!msg|message|err)\w+=(?:\"[^\"]*\"|\S+)|\"(?!msg|message|err)[\w.@]+\": *(?:\"[^\"]*\"|[\d.]+)"
)
"""A part of a line that may come before its level. A level after other words belongs to the message."""
QUIET_LEVELS = ("TRACE", "DEBUG", "INFO", "NOTICE", "D", "I")
WARNING_LEVELS = ("WARN", "WARNING", "W")
ERROR_LEVELS = ("ERROR", "CRITICAL", "FATAL", "SEVERE", "PANIC", "E", "F")
OUT_OF_MEMORY = ("exceeded memory limit", "Exceeded job memory limit", "oom_kill", "oom-kill", "Out Of Memory")
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


def error_line(lines: Sequence[str], exit_code: str = "") -> str | None:
    """Find the line that says why a job failed, without its time stamp; None if there is none.

    The order of preference: what a shell says if the exit code is 126 or 127, embedkit's own error, Slurm's, the last
    exception, any line that looks like an error, then a warning. A line at level INFO or below is never the cause.

    Args:
        lines: the lines of an attempt.
        exit_code: Slurm's exit code, `127:0`; "" if unknown.
    """
    lines = [line for line in lines if _level(line) not in QUIET_LEVELS]
    if is_not_found(exit_code):
        missing = [line for line in lines if NOT_FOUND.search(line) and _level(line) not in WARNING_LEVELS]
        if missing:
            return missing[-1].strip()
    if (own := embedkit_error(lines)) is not None:
        return own
    for pattern in (SLURM_ERROR, EXCEPTION):
        found = [match for line in lines if (match := pattern.search(line))]
        if found:
            return found[-1][pattern.groups].strip()  # group 1, or the whole match if the pattern has no group
    errors = [line for line in lines if OTHER_ERROR.search(line) or _level(line) in ERROR_LEVELS]
    errors = [line for line in errors if _level(line) not in WARNING_LEVELS] or errors
    return errors[-1].strip() if errors else None


def _level(line: str) -> str:
    """The level of a line, in capitals, or the letter of glog's format; "" if none comes before the message."""
    at = 0
    while (found := LEVEL.match(line, at)) is None:
        prefix = PREFIX.match(line, at)
        if prefix is None:
            return ""
        at = prefix.end()
    return re.split(r"[^A-Z]+", found[0].upper().rstrip('] "'))[-1]


def embedkit_error(lines: Sequence[str]) -> str | None:
    """The last error that embedkit itself logged, without its time stamp, in one line; None if there is none."""
    found = [number for number, line in enumerate(lines) if EMBEDKIT_ERROR.search(line)]
    if not found:
        return None
    first, *rest = lines[found[-1] :]
    message = re.sub(EMBEDKIT_ERROR, r"\1", first)
    # Messages of several lines: the first ends in a colon, the others are indented or say what to do.
    more = list(takewhile(lambda line: re.match(r"  \S|to \w", line), rest)) if message.endswith(":") else []
    return one_line("\n".join([message, *more]))


def one_line(text: str, longest: int = LONGEST) -> str:
    """Join the lines of a message readably. The middle of a long one is left out, since advice is at the end."""
    lines = [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]
    joined = ""
    for line in lines:
        glue = "" if not joined else " " if joined.endswith((":", ";", ",")) else "; "
        joined += glue + line
    if len(joined) <= longest:
        return joined
    end = longest // 3
    return f"{joined[: longest - end]} ... {joined[-end:]}"


def says_out_of_memory(path: Path) -> bool:
    """Whether Slurm's daemon says in the log that it killed the newest attempt for its memory use.

    Other lines do not count: a GPU that is out of memory needs no more memory on the node.
    """
    errors = [line for line in newest_attempt(path) if SLURM_ERROR.search(line)]
    return any(text in line for line in errors for text in OUT_OF_MEMORY)


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
