"""The entry of each job: a few lines that call embedkit, the same wherever the job runs."""

import errno
import logging
import os
import sys
from pathlib import Path

from embedkit.errors import EmbedkitError
from embedkit.runfolder import RunFolder

log = logging.getLogger("embedkit")

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""A job never calls out: its files were fetched when the run was asked for."""


def prepare_task(run: Path, workers: int | None = None) -> None:
    """Prepare the run."""
    os.environ.update(OFFLINE)
    from embedkit.prepare import prepare

    prepare(RunFolder(run), workers)


def embed_task(run: Path, shard: int) -> None:
    """Embed one shard."""
    os.environ.update(OFFLINE)
    from embedkit.embed import embed_shards

    embed_shards(RunFolder(run), [shard])


def merge_task(run: Path, allow_mixed: bool = False) -> None:
    """Merge the run's shards."""
    os.environ.update(OFFLINE)
    from embedkit.merge import merge

    merge(RunFolder(run), allow_mixed)


def log_to_file(path: Path) -> None:
    """Send everything this process and its libraries print to a log file, appended to what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    for stream in (1, 2):
        os.dup2(fd, stream)
    os.close(fd)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr, force=True)
    logging.getLogger("submitit").propagate = False  # it prints its own lines
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    log.info("started: process %d", os.getpid())


def describe_os_error(error: OSError) -> str:
    """An operating system's error for a person; a quota is a full disk too."""
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.strerror}){where}; make room and resume: what is done is kept"
    return f"{error.strerror or error}{where}"


def exit_code_of(error: Exception) -> int:
    """Log a failure for the reader of the log, and give the exit code that says it."""
    if isinstance(error, EmbedkitError):
        log.error("%s", error)
        return error.exit_code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        log.error("%s", describe_os_error(error))
        return 1
    log.error("%s: %s", type(error).__name__, error, exc_info=error)
    return 1
