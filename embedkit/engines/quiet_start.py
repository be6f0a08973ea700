"""Starts an engine without what libraries write to standard error: warnings, bars, notes of C++ code."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from embedkit.errors import EmbedkitError

STDERR = 2


@contextmanager
def quiet_start() -> Iterator[None]:
    """Keep standard error from the screen inside. It is shown only if a library fails.

    Lines of Python's root logger still arrive at once. Libraries have handlers of their own, so those are embedkit's.
    The file descriptor is replaced, since C++ code writes to nothing else.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept, os.fdopen(os.dup(STDERR), "w", errors="backslashreplace") as screen:
        handlers = [one for one in logging.root.handlers if getattr(one, "stream", None) is sys.stderr]
        os.dup2(kept.fileno(), STDERR)
        for handler in handlers:
            handler.setStream(screen)  # type: ignore[attr-defined]
        failed = False
        try:
            yield
        except EmbedkitError:
            raise  # its message says enough
        except Exception:
            failed = True
            raise
        finally:
            sys.stderr.flush()
            for handler in handlers:
                handler.setStream(sys.stderr)  # type: ignore[attr-defined]
            screen.flush()
            os.dup2(screen.fileno(), STDERR)
            if failed:
                kept.seek(0)
                os.write(STDERR, kept.read())
