"""Start Slurm's commands: here, or through the shell of the job where a profile's launcher started this process.

In most containers there is no Slurm. The job's shell runs outside (jobs/submit/launch.sh). It reads commands from a
pipe in the run's folder, which the container mounts, and writes the output and the exit code next to it.
"""

import os
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PIPE_FOLDER = "EMBEDKIT_SLURM"
"""The variable with the folder of the pipe. It is set in jobs with a launcher."""
PIPE = "commands"
POLL_SECONDS = 0.05


def start_command(
    command: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands to its end and return its output. Raises as subprocess.run does.

    Args:
        command: the command. Only scontrol goes through the job's shell, which sets TZ=UTC for it.
        timeout: seconds until TimeoutExpired.
        environment: all variables of the command; None for those of this process.
    """
    folder = os.environ.get(PIPE_FOLDER)
    if folder and command[0] == "scontrol":
        pipe = _open_pipe(Path(folder))
        if pipe is not None:
            return _through_shell(Path(folder), pipe, command, timeout)
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,  # a wrapper that asks whether to cancel gets no answer, and does not wait
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env=environment,
        check=False,
    )


def _open_pipe(folder: Path) -> int | None:
    """Open the pipe for writing; None if no shell reads it."""
    try:
        return os.open(folder / PIPE, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def _through_shell(folder: Path, pipe: int, command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Let the job's shell run a command. No word of it may have a space."""
    name = secrets.token_hex(8)
    out, err, code = (folder / f"{name}.{suffix}" for suffix in ("out", "err", "code"))
    try:
        os.write(pipe, f"{name} {' '.join(command)}\n".encode())
    finally:
        os.close(pipe)
    deadline = time.monotonic() + timeout
    while not code.exists():  # it appears last, and whole
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(list(command), timeout)
        time.sleep(POLL_SECONDS)
    texts = [path.read_text(errors="replace") for path in (out, err, code)]
    for path in (out, err, code):
        with suppress(OSError):
            path.unlink()
    return subprocess.CompletedProcess(list(command), int(texts[2]), texts[0], texts[1])
