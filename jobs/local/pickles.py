"""Folders for submitit's files: the pickles and logs of jobs on this machine."""

import os
import shutil
import tempfile
from pathlib import Path

from embedkit.run import RunFolder
from embedkit.storage import new_private_folder


def new_job_folder(parent: Path) -> Path:
    """Make a new folder for the files of a queue's jobs: submitit names them by process id, and those repeat.

    It is in `parent`, or with temporary files if the path has a `%`: submitit replaces %j, %t, %A and %a in paths.
    """
    if "%" in str(parent):
        roots = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108
        parent = next(root for root in roots if "%" not in str(root)) / f"embedkit-{os.getuid()}"
    return new_private_folder(parent)


def remove_job_files(run: RunFolder) -> None:
    """Remove files of submitit that killed queues left. Call it when no job of the run is left."""
    shutil.rmtree(job_folders(run), ignore_errors=True)


def job_folders(run: RunFolder) -> Path:
    """Where the queues of a run make their folders."""
    return run.logs / "submitit"
