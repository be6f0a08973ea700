"""On PYTHONPATH, this kills the process that loads it with SIGKILL at its K-th durable step, or stops it there.

A durable step is an fsync, a rename or a link; EMBEDKIT_TEST_KILL_AT is K, or EMBEDKIT_TEST_STOP_AT for SIGSTOP. Odd
steps are done before the signal, even ones are not. EMBEDKIT_TEST_SIGNALLED is a folder: each process that gets the
signal leaves a file there with its process id as the name.
"""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

kill_at = int(os.environ.get("EMBEDKIT_TEST_KILL_AT", "0"))
stop_at = int(os.environ.get("EMBEDKIT_TEST_STOP_AT", "0"))
record = os.environ.get("EMBEDKIT_TEST_SIGNALLED")
at, sent = (stop_at, signal.SIGSTOP) if stop_at else (kill_at, signal.SIGKILL)
numbers = itertools.count(1)  # threads count too, and `next` is whole


def send() -> None:
    if record:
        Path(record, str(os.getpid())).touch()
    os.kill(os.getpid(), sent)


def counted(step: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        is_it = next(numbers) == at
        if is_it and at % 2 == 0:
            send()
        result = step(*args, **kwargs)
        if is_it and at % 2 == 1:
            send()
        return result

    return wrapper


if at:
    os.fsync, os.replace, os.link = counted(os.fsync), counted(os.replace), counted(os.link)
