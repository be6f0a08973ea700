"""Imports of large libraries without the searches of Python's garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def large_imports() -> Iterator[None]:
    """Import torch, transformers or vLLM inside. The collector waits meanwhile, and later leaves what they made alone.

    They make a million objects that live as long as the process. The collector would search them several times while
    they are made, and vLLM asks it five times to search everything while an engine starts and ends.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
