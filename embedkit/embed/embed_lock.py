"""A lock of a process that embeds, so that nobody deletes its run."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from embedkit.run import EMBED_LOCK, EMBEDDING, RunFolder
from embedkit.storage import remove_ended_locks, run_lock


@contextmanager
def embed_lock(run: RunFolder) -> Iterator[None]:
    """Hold a lock of this process's own while it embeds. Removes those that ended processes left.

    A task that was submitted with the run needs none: the queue shows it, and killed tasks would leave thousands.
    """
    remove_ended_locks(run.path, EMBED_LOCK)
    with run_lock(run.embed_lock(secrets.token_hex(4)), EMBEDDING):
        yield
