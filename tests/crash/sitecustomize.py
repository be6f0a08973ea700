"""On PYTHONPATH, this kills the process that loads it with SIGKILL at its K-th durable step.

A durable step is an fsync, a rename or a link; EMBEDKIT_TEST_KILL_AT is K. Odd steps are done before the kill,
even ones are not.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

kill_at = int(os.environ.get("EMBEDKIT_TEST_KILL_AT", "0"))
steps = 0


def counted(step: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        global steps
        steps += 1
        if steps == kill_at and kill_at % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = step(*args, **kwargs)
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapper


if kill_at:
    os.fsync, os.replace, os.link = counted(os.fsync), counted(os.replace), counted(os.link)
