"""Starts prepare's workers from a process that has loaded the tokenizers: multiprocessing's fork server.

Loading takes seconds, and hundreds of megabytes, which all workers then share. The server never has a second thread
(`embedkit/preload.py`); what starts threads is imported by each worker. Where that cannot be had, workers are new
processes as usual, and each loads its own tokenizers.
"""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from embedkit.model import tokenizer_to_preload
from embedkit.preloaded import VARIABLE


@contextmanager
def worker_context(model: Path, workers: int) -> Iterator[BaseContext]:
    """In the block, a context for worker processes, the usual one if only one of them will tokenize, or none.

    model: the folder of the tokenizers. workers: how many processes need them. The fork server has the environment of
    the time at which the block begins.
    """
    server: Any = forkserver._forkserver
    is_usable = "forkserver" in get_all_start_methods() and server._forkserver_pid is None  # else it is the caller's
    if workers < 2 or not is_usable:
        yield get_context("spawn")
        return
    try:
        yield get_context("forkserver") if _start(server, model) else get_context("spawn")
    finally:
        _stop(server)


def _start(server: Any, model: Path) -> bool:
    """Start the fork server, and wait until it has loaded the tokenizers. Returns whether it has."""
    tokenizer, use_fast = tokenizer_to_preload(model)
    try:
        with TemporaryFile() as file:
            data = tokenizer.encode()
            file.write(data)
            file.flush()
            os.environ[VARIABLE] = json.dumps(
                {
                    "model": str(model),
                    "tokenizer": f"/proc/{os.getpid()}/fd/{file.fileno()}",
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "use_fast": use_fast,
                }
            )
            server.set_forkserver_preload(["embedkit.preload"])
            server.ensure_running()
            first = get_context("forkserver").Process(target=os.getpid)
            first.start()
            first.join()
            return first.exitcode == 0
    except (OSError, EOFError, RuntimeError):  # it has ended, or cannot start
        return False
    finally:
        os.environ.pop(VARIABLE, None)


def _stop(server: Any) -> None:
    """End the fork server, and leave multiprocessing as it was."""
    server.set_forkserver_preload(["__main__"])
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()
