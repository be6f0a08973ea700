"""The tokenizers that a process had loaded before it was forked, so that those forked from it need not load them.

This module imports nothing that starts threads, as polars does: a process that has threads cannot be forked safely.
"""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREAD_END_SECONDS = 1.0
VARIABLE = "EMBEDKIT_PRELOAD"
"""Names what a fork server loads: a JSON object with the arguments of `load`."""


@dataclass(frozen=True)
class Preloaded:
    """The libraries' own tokenizers of a model folder. fast: that of fastokens, None if it is not used."""

    model: Path
    fast: Any
    reference: Any


_preloaded: Preloaded | None = None


def preloaded(model: Path) -> Preloaded | None:
    """The tokenizers of a model folder, if this process has them."""
    return _preloaded if _preloaded is not None and _preloaded.model == model else None


def load(model: str, tokenizer: str, sha256: str, use_fast: bool) -> None:
    """Load the tokenizers of a model folder. Raises ValueError for another file, and whatever a library raises.

    Args:
        model: the folder.
        tokenizer: path of a file with the tokenizer as JSON.
        sha256: of the file's bytes. A path in /proc may name another process in another PID namespace.
        use_fast: whether fastokens counts, if it can load the tokenizer.
    """
    global _preloaded
    data = Path(tokenizer).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{tokenizer}: not the tokenizer of {model}")
    text = data.decode()
    with ThreadPoolExecutor(1) as thread:  # both load without Python's lock
        reference = thread.submit(_load_reference, text)
        fast = _load_fast(text) if use_fast else None
    _preloaded = Preloaded(Path(model), fast, reference.result())


def _load_fast(text: str) -> Any:
    from fastokens._native import Tokenizer  # a large library; not installed everywhere

    try:
        fast: Any = Tokenizer.from_json_str(text)
    except ValueError:
        return None  # a kind of tokenizer that fastokens does not support
    fast.encode_batch_flat(["a"], add_special_tokens=True)  # the first text makes its tables
    return fast


def _load_reference(text: str) -> Any:
    from tokenizers import Tokenizer  # a large library, which most commands do not need

    return Tokenizer.from_str(text)


def becomes_alone() -> bool:
    """Wait until this process has one thread again. False if it does not: a library has started some.

    A thread of Python's is still in the system for a moment after it has been joined.
    """
    deadline = time.monotonic() + THREAD_END_SECONDS
    while not is_alone():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def is_alone() -> bool:
    """Whether this process has one thread, those of libraries included. False where it cannot be known."""
    try:
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208
    except OSError:
        return False
