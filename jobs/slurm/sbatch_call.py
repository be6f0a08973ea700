"""Call sbatch, and find the job's id in what it prints.

A site's sbatch may be a wrapper: it prints a banner, drops --parsable, loses the id, or fails although the job was
accepted. So an answer says how sure the id is; jobs.submit asks the queue where it is not.
"""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jobs.slurm.client import plain_text

PATIENCE_SECONDS = 5.0
"""A call of sbatch that takes longer is reported."""
SEARCH_INTERVAL_SECONDS = 15.0
"""Seconds between searches for the job of a call that does not return."""
SBATCH_SECONDS = 300.0
"""A call of sbatch that takes longer is ended. Its job may be in the queue."""
LOST_ANSWER = re.compile(
    r"timed? ?out|contact|connect|communicat|transport|zero bytes|respond|unexpected message|temporarily|try again"
    r"|unavailable|interrupted|broken pipe|persist",
    re.IGNORECASE,
)
"""Errors after which the controller may have accepted the job all the same."""


@dataclass(frozen=True)
class SbatchAnswer:
    """What a call of sbatch gave.

    Attributes:
        job: the job's id, if the output has one; also after an error.
        is_certain: whether the id needs no check.
        cluster: the cluster that the output names; "" if it names none.
        error: why it failed; "" if it did not.
        may_be_there: whether a job may exist after this error.
        warnings: the lines of stderr.
    """

    job: str | None
    is_certain: bool = False
    cluster: str = ""
    error: str = ""
    may_be_there: bool = False
    warnings: tuple[str, ...] = ()


def call_sbatch(script: Path, while_waiting: Callable[[float], str | None]) -> SbatchAnswer:
    """Submit a script.

    Args:
        script: the file.
        while_waiting: called after PATIENCE_SECONDS, and again and again, with the seconds that sbatch has taken. If
            it returns the id of the job, which Slurm has accepted, sbatch is ended.

    Raises:
        OSError: sbatch cannot be started.
    """
    found: list[str] = []

    def search(seconds: float) -> bool:
        found.extend(job for job in (while_waiting(seconds),) if job is not None)
        return bool(found)

    code, out, err = run_sbatch("--parsable", str(script), while_waiting=search, seconds=SBATCH_SECONDS)
    if found:
        return SbatchAnswer(found[-1], is_certain=True)
    if code is None:
        error = f"sbatch did not answer in {SBATCH_SECONDS:.0f} s"
        job, _ = parse_job_id(out)
        return SbatchAnswer(job, cluster=cluster_of(out, job), error=error, may_be_there=True, warnings=_lines(err))
    return read_answer(code, out, err)


def run_sbatch(*arguments: str, while_waiting: Callable[[float], bool], seconds: float) -> tuple[int | None, str, str]:
    """Run sbatch; returns exit code, stdout and stderr. The code is None if it was ended.

    Args:
        arguments: its arguments.
        while_waiting: called as in call_sbatch; whether to end sbatch.
        seconds: end it after so long.

    Raises:
        OSError: sbatch cannot be started.
    """
    # Files, not pipes: a process that a wrapper leaves behind would keep a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            ["sbatch", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            process_group=0,  # with all that a wrapper starts, so that it can be ended
        )
        try:
            code = _wait(process, while_waiting, seconds)
        except BaseException:
            _end(process)
            raise
        return code, _text(out), _text(err)


def _wait(process: subprocess.Popen[bytes], while_waiting: Callable[[float], bool], seconds: float) -> int | None:
    """The exit code of sbatch; None if it was ended."""
    began = time.monotonic()
    wait = min(PATIENCE_SECONDS, seconds)
    while True:
        try:
            return process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            passed = time.monotonic() - began
        if while_waiting(passed) or passed >= seconds:
            _end(process)
            return None
        wait = max(min(SEARCH_INTERVAL_SECONDS, seconds - passed), 0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End sbatch and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


def _text(file: IO[bytes]) -> str:
    """All that was printed into a file."""
    file.seek(0)
    return file.read().decode(errors="replace")


def read_answer(code: int, out: str, err: str) -> SbatchAnswer:
    """Read the exit code and output of `sbatch --parsable`."""
    warnings = _lines(err)
    if code:
        job, _ = parse_job_id(out)
        cluster = cluster_of(out, job)
        printed = "" if job is None else f" after it printed {job}"
        errors = _errors(warnings) or warnings or (_lines(out) if job is None else ())
        message = "\n".join(errors) or f"sbatch exited with {code}{printed}"
        may_be_there = job is not None or code < 0 or code >= 128 or not errors or bool(LOST_ANSWER.search(message))
        return SbatchAnswer(job, cluster=cluster, error=message, may_be_there=may_be_there, warnings=warnings)
    job, is_certain = parse_job_id(out)
    if job is None:
        job, _ = parse_job_id("\n".join(line for line in warnings if SUBMITTED.search(line)))
    if job is None:
        error = "\n".join(_errors(warnings)) or f"sbatch printed no job id: {plain_text(out).strip()[:200]!r}"
        return SbatchAnswer(None, error=error, may_be_there=True, warnings=warnings)
    return SbatchAnswer(job, is_certain, cluster_of(out + err, job), warnings=warnings)


def _errors(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(line for line in lines if "error" in line.lower())


SUBMITTED = re.compile(r"Submitted batch job (\d+)(?: on cluster ([\w.-]+))?")
PARSABLE = re.compile(r"(\d+)(?:;([\w.-]+))?")


def parse_job_id(out: str) -> tuple[str | None, bool]:
    """The job's id in sbatch's output, and whether it is certain. (None, False) if there is none.

    `123;cluster` counts most, then the last `Submitted batch job 123`, then the last line that is a bare number. It is
    certain if no other number competes with it, and no banner surrounds a bare number.
    """
    lines = _lines(out)
    parsable = [found for line in lines if (found := PARSABLE.fullmatch(line))]
    with_cluster = [found[1] for found in parsable if found[2]]
    submitted = [found[1] for line in lines for found in SUBMITTED.finditer(line)]
    bare = [found[1] for found in parsable if not found[2]]
    candidates = [*bare, *submitted, *with_cluster]
    if not candidates:
        return None, False
    is_certain = len(set(candidates)) == 1 and (bool(with_cluster or submitted) or len(lines) == 1)
    return (with_cluster or submitted or bare)[-1], is_certain


def cluster_of(out: str, job: str | None) -> str:
    """The cluster that sbatch's output names for a job; "" if it names none."""
    lines = _lines(out)
    found = [*(PARSABLE.fullmatch(line) for line in lines), *(SUBMITTED.search(line) for line in lines)]
    clusters = [one[2] for one in found if one is not None and one[1] == job and one[2]]
    return clusters[-1] if clusters else ""


def _lines(text: str) -> tuple[str, ...]:
    """The lines of text that are not empty, without colours."""
    return tuple(line.strip() for line in plain_text(text).splitlines() if line.strip())
