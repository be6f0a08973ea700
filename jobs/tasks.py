"""The entry point of each job, the same on this machine and on a cluster, and how a job logs and fails.

Each task imports its stage only after OFFLINE is set: libraries of the Hub read it when they are first imported.
"""

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage import match_umask
from jobs import output
from jobs.os_errors import EXPLAINED, describe_os_error, errno_of
from jobs.records import Submissions, record_times

log = logging.getLogger("embedkit")

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""Environment of every job. Jobs never call out: the run's files were fetched when it was created."""


def prepare_task(run: Path) -> None:
    """Prepare the run."""
    os.environ.update(OFFLINE)
    from embedkit.prepare import prepare

    match_umask(run)
    folder = RunFolder(run)
    with record_times(folder, "prepare", folder.plan):
        prepare(folder)


def embed_task(run: Path, shards: Iterable[int], allow_mixed: bool = False, stops: Path | None = None) -> None:
    """Embed shards with one engine. Raises StoppedAtChunk if `stops` has a request, and chunks are missing."""
    os.environ.update(OFFLINE)
    from embedkit.embed import embed_shards

    match_umask(run)
    embed_shards(RunFolder(run), shards, allow_mixed, stops)


def preflight_task(run: Path, allow_mixed: bool = False) -> None:
    """Test this node and the run's engine."""
    os.environ.update(OFFLINE)
    from embedkit.check.preflight import preflight

    match_umask(run)
    submission = Submissions(RunFolder(run)).last("preflight")
    preflight(RunFolder(run), None if submission is None else submission.gpus, allow_mixed)


def merge_task(run: Path, allow_mixed: bool = False) -> None:
    """Merge the run's shards."""
    os.environ.update(OFFLINE)
    from embedkit.merge import merge

    match_umask(run)
    folder = RunFolder(run)
    with record_times(folder, "merge", folder.success):
        merge(folder, allow_mixed)


def analyze_task(run: Path) -> None:
    """Analyze the merged run."""
    from embedkit.analysis.stage import analyze

    analyze(RunFolder(run))


def log_to_file(path: Path) -> None:
    """Append everything that this process and its libraries print to a log file."""
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
    """Log to stderr, which is the log file of a job."""
    output.log_to_stderr(logging.INFO, LOG_FORMAT)
    logging.getLogger("submitit").propagate = False  # it prints its own lines
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")


def exit_code_of(error: Exception) -> int:
    """Log a failed job's error and return the exit code of the job."""
    if isinstance(error, EmbedkitError):
        log.error("%s", error)
        return error.exit_code
    if errno_of(error) in EXPLAINED:
        log.error("%s", describe_os_error(error))
        return 1
    log.error("%s: %s", type(error).__name__, error, exc_info=error)
    return 1
