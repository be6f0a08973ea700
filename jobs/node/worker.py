"""A worker of an array task with several shards: it passes the code of its error to the task's process."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from embedkit.embed import StoppedAtChunk, durable_chunks
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.records import Attempts
from jobs.tasks import embed_task


def embed_in_worker(run: Path, scratch: Path, allow_mixed: bool, shards: Iterable[int]) -> None:
    """Embed shards one after another with one engine, and record when each begins.

    If that raises an error with a code, write the code to the task's scratch folder first. If the task's process has it
    stop at the end of a chunk, it says so in that folder and ends without an error.

    Args:
        run: the run's folder.
        scratch: a folder of this array task alone, for the file that `error_code_of` reads.
        allow_mixed: accept an engine that differs from that of other shards.
        shards: at least one. The next one is asked for when the one before it is done.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # the task's process decides what a warning means
    taking = iter(shards)
    shard = next(taking)

    def begun() -> Iterator[int]:
        nonlocal shard
        while True:
            _record_start(RunFolder(run), shard)
            yield shard
            try:
                shard = next(taking)
            except StopIteration:
                return

    try:
        embed_task(run, begun(), allow_mixed, scratch)
    except StoppedAtChunk:
        _stopped_file(scratch, shard).touch()
    except EmbedkitError as error:
        if error.code:
            with suppress(OSError):  # without the file, the shard's event has no code
                _code_file(scratch, shard).write_text(error.code, encoding="utf-8")
        raise


def _record_start(run: RunFolder, shard: int) -> None:
    """Record the start of a shard, unless the task's process did when it started itself."""
    attempts = Attempts(run, "embed", shard)
    if not attempts.has_begun():
        attempts.add("started", len(durable_chunks(run.shard(shard))), "")


def error_code_of(scratch: Path, shard: int) -> str:
    """The code of the error that ended a shard's worker; "" if it has none, or the worker was killed."""
    path = _code_file(scratch, shard)
    return path.read_text(encoding="utf-8") if path.exists() else ""


def has_stopped(scratch: Path, shard: int) -> bool:
    """Whether a shard's worker ended at the end of a chunk, because that was requested."""
    return _stopped_file(scratch, shard).exists()


def _stopped_file(scratch: Path, shard: int) -> Path:
    return scratch / f"stopped-{shard:05d}"


def _code_file(scratch: Path, shard: int) -> Path:
    return scratch / f"error-code-{shard:05d}"
