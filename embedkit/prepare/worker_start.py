"""Why prepare's worker processes do not start, and what to type."""

import os
import resource
import signal
import subprocess
import sys

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder, program
from embedkit.terminal import command_line

PROBE_SECONDS = 60.0
LIMITS = {"processes (ulimit -u)": "RLIMIT_NPROC", "bytes of memory (ulimit -v)": "RLIMIT_AS"}


def start_error(run: RunFolder, workers: int, missing: int, error: BaseException | None = None) -> EmbedkitError:
    """Return the error for workers that did not start.

    Args:
        run: the run.
        workers: number of workers that were wanted.
        missing: how many of them did not start.
        error: what the system said; None if it started them and they died before they could do anything.
    """
    # A pipe, or the fork server's socket, breaks because the process at its end has died: that says nothing about why.
    has_died = error is None or isinstance(error, EOFError | ConnectionError)
    why = _why_a_worker_dies() if has_died else str(error)
    return EmbedkitError(
        f"{missing} of {workers} worker processes of prepare did not start: {why}{_limits()}; the parts that are done "
        f"are kept\n{with_fewer(run, workers)}"
    )


def with_fewer(run: RunFolder, workers: int) -> str:
    """What to type to continue with fewer workers or more memory, after `workers` were too many."""
    if run.submissions.exists():
        return f"give [prepare] of the profile more mem or fewer cpus, and type: {run.resume_command} --profile PATH"
    if workers == 1:
        return f"to continue: {run.resume_command}"
    where = ["--run-name", run.name, "--output-dir", str(run.path.parent)]
    return f"to continue with one: {command_line([program(), 'prepare', '--resume', *where, '--workers', '1'])}"


def _why_a_worker_dies() -> str:
    """Start a process that imports what a worker imports, and return what it says if it dies too."""
    command = [sys.executable, "-c", "import embedkit.prepare.workers"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False, cwd="/", env=_env())
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.decode(errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if done.returncode < 0:
        return f"one that was started to try it was ended by {signal.Signals(-done.returncode).name} {said}".rstrip()
    if done.returncode:
        return said or f"one that was started to try it ended at once, with exit code {done.returncode}"
    return "each ended at once, and what it said is above"


def _env() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _limits() -> str:
    """The limits of this process that may be the cause; "" if there are none."""
    found = []
    for what, name in LIMITS.items():
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            found.append(f"{soft:,} {what}")
    return f" (limits here: {', '.join(found)})" if found else ""
