"""Start and end of prepare and merge, as lines of `logs/stage_times.jsonl`. Outside Slurm they have no other record.

A report takes times from records alone: a copy of a run has other times of files.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedkit.documents import FORMAT, Document, decode_line, encode_line
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage import sha256_file
from jobs.profiles import Stage

NAME = "stage_times.jsonl"


class StageTimes(Document, frozen=True):
    """One line: a stage that made its result. Seconds since the epoch, by the clock of the machine.

    result: sha256 of the result's bytes. The line of a later result may be lost, and this one is not about it.
    """

    format: int
    stage: Stage
    started: float
    ended: float
    result: str = ""


@contextmanager
def record_times(run: RunFolder, stage: Stage, result: Path) -> Iterator[None]:
    """Append a line about a stage that ends without an error, unless its result was there before.

    An error of the file system is ignored: no decision needs the line.
    """
    before, started = _identity(result), time.time()
    yield
    if _identity(result) != before:
        ended, path = time.time(), run.logs / NAME
        with suppress(OSError):
            times = StageTimes(format=FORMAT, stage=stage, started=started, ended=ended, result=sha256_file(result))
            run.logs.mkdir(exist_ok=True)
            with path.open("ab") as file:
                if file.tell() and not path.read_bytes().endswith(b"\n"):
                    file.write(b"\n")  # closes a line that a kill cut short
                file.write(encode_line(times))


def read_times(run: RunFolder) -> dict[Stage, tuple[float, float]]:
    """Start and end of each stage in the newest line about its result. Lines that cannot be read are skipped."""
    found: dict[Stage, tuple[float, float]] = {}
    path = run.logs / NAME
    results = {sha256_file(result) for result in (run.plan, run.success) if result.exists()}
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        with suppress(EmbedkitError):
            times = decode_line(line, StageTimes, path)
            if times.result in results:
                found[times.stage] = times.started, times.ended
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is there now; None if none is."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
