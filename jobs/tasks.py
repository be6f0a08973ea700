"""The entry of each job: a few lines that call embedkit, the same wherever the job runs."""

import errno
import logging
import os
import re
import sys
from pathlib import Path

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage.atomic import match_umask

log = logging.getLogger("embedkit")

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""A job never calls out: its files were fetched when the run was asked for."""


def prepare_task(run: Path, workers: int | None = None) -> None:
    """Prepare the run."""
    os.environ.update(OFFLINE)
    from embedkit.prepare.stage import prepare

    match_umask(run)
    prepare(RunFolder(run), workers)


def embed_task(run: Path, shard: int) -> None:
    """Embed one shard."""
    os.environ.update(OFFLINE)
    from embedkit.embed.stage import embed_shards

    match_umask(run)
    embed_shards(RunFolder(run), [shard])


def preflight_task(run: Path) -> None:
    """Try the node and the run's engine."""
    os.environ.update(OFFLINE)
    from embedkit.check.preflight import preflight
    from jobs.records.submissions import Submissions

    match_umask(run)
    asked = Submissions(RunFolder(run)).last("preflight")
    preflight(RunFolder(run), None if asked is None else asked.gpus)


def merge_task(run: Path, allow_mixed: bool = False) -> None:
    """Merge the run's shards."""
    os.environ.update(OFFLINE)
    from embedkit.merge.stage import merge

    match_umask(run)
    merge(RunFolder(run), allow_mixed)


def analyze_task(run: Path) -> None:
    """Analyze the merged run."""
    from embedkit.analysis.stage import analyze

    analyze(RunFolder(run))


def log_to_file(path: Path) -> None:
    """Send everything this process and its libraries print to a log file, appended to what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    for stream in (1, 2):
        os.dup2(fd, stream)
    os.close(fd)
    log_to_stderr()
    log.info("started: process %d", os.getpid())


def log_to_stderr() -> None:
    """Send the log lines of this process and its libraries to stderr, which is its log file."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr, force=True)
    logging.getLogger("submitit").propagate = False  # it prints its own lines
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")


FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


def errno_of(error: Exception) -> int | None:
    """The operating system's number for an error, also for one that a library passed on; None for any other error."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))  # as polars says it, in errors of its own
    return int(found[1]) if found else None


def describe_os_error(error: Exception, folder: Path | None = None) -> str | None:
    """An operating system's error for a person; None for any other error. A quota is a full disk too.

    `folder` is where the work was, for errors that do not name a file.
    """
    number = errno_of(error)
    if number is None:
        return str(error) if isinstance(error, OSError) else None
    place = getattr(error, "filename", None) or folder
    what = os.strerror(number) + (f" at {place}" if place else "")
    if number in FULL:
        return f"the disk is full: {what}; make room and resume: what is done is kept"
    if number in FORBIDDEN:
        return f"{what}; mend that, or name another folder (--output-dir); what is done is kept"
    return what


def exit_code_of(error: Exception) -> int:
    """Log a failure for the reader of the log, and give the exit code that says it."""
    if isinstance(error, EmbedkitError):
        log.error("%s", error)
        return error.exit_code
    if errno_of(error) in (*FULL, *FORBIDDEN):
        log.error("%s", describe_os_error(error))
        return 1
    log.error("%s: %s", type(error).__name__, error, exc_info=error)
    return 1
