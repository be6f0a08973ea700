"""Receive the signals of a job from its shell, where a profile's launcher started this process.

Slurm signals the shell. It passes signals on through a pipe (jobs/submit/launch.sh), not through the launcher: podman,
for one, stops passing them on when Slurm ends one of its helpers.
"""

import os
import signal
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from jobs.slurm import PIPE_FOLDER

PIPE = "signals"


def receive_signals(expected: Collection[signal.Signals]) -> None:
    """Send this process the expected signals that the shell gets from now on. Does nothing without a launcher."""
    folder = os.environ.get(PIPE_FOLDER)
    if folder:
        names = {number.name.removeprefix("SIG"): number for number in expected}
        thread = threading.Thread(target=_receive, args=(Path(folder) / PIPE, names), name="shell-signals", daemon=True)
        thread.start()


def _receive(pipe: Path, names: dict[str, signal.Signals]) -> None:
    with suppress(OSError), pipe.open(encoding="utf-8") as lines:
        for line in lines:
            number = names.get(line.strip())
            if number is not None:
                os.kill(os.getpid(), number)
