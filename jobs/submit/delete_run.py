"""Delete a run, for `--overwrite`: only one on which nobody works, and completely."""

import secrets
import shutil
from pathlib import Path

from embedkit.errors import EmbedkitError, UsageError
from embedkit.run import RunFolder
from embedkit.storage import refuse_if_held
from embedkit.terminal import quote
from jobs.output import print_note
from jobs.records import unended_jobs
from jobs.slurm import has_slurm
from jobs.submit.state import refuse_if_active

DELETING = ".deleting-"
"""The beginning of the name of a folder that is being deleted."""


def delete_run(run: RunFolder) -> None:
    """Delete a run. It is renamed first, so that a deletion that is killed leaves no half of it under its name.

    Raises:
        UsageError: jobs of the run are queued or running, or nobody here can say so.
        EmbedkitError: a process works on the run, or may do so. The run is left as it was.
    """
    refuse_if_active(run)
    if not has_slurm() and (jobs := unended_jobs(run)):
        raise UsageError(
            f"{run.path} is not deleted: its jobs {' '.join(jobs)} may be queued or running, and there is no Slurm "
            f"here to ask. Type this on the cluster, or, if they have ended: rm -r {quote(str(run.path))}"
        )
    _refuse_if_locked(run)
    aside = run.path.with_name(f"{DELETING}{run.name}-{secrets.token_hex(4)}")
    try:
        run.path.rename(aside)
    except FileNotFoundError:
        if not aside.exists():  # NFS may have renamed it and lost the answer
            raise _is_missing(run) from None
    try:
        _refuse_if_locked(RunFolder(aside))  # a process may have begun a moment before the rename
    except EmbedkitError as error:
        _put_back(aside, run)
        _refuse_if_locked(run)
        raise EmbedkitError(f"{run.path} is not deleted: a process began to work on it just now; try again") from error
    for folder in _deleting(run):
        try:
            _refuse_if_locked(RunFolder(folder))  # a different command may be about to put it back
            shutil.rmtree(folder)
        except EmbedkitError as error:
            print_note(f"note: {error}")
        except OSError as error:
            if folder.exists():  # no other command has deleted it meanwhile
                print_note(f"note: not all of the earlier run could be deleted ({error}): rm -r {quote(str(folder))}")


def _is_missing(run: RunFolder) -> EmbedkitError:
    return EmbedkitError(f"{run.path} is not there any more: another command is deleting it; type this one again")


def _refuse_if_locked(run: RunFolder) -> None:
    """Raise EmbedkitError naming the holder if any lock of the run is held, or may be."""
    try:
        locks = run.locks()
    except FileNotFoundError:
        raise _is_missing(run) from None
    for path, what in locks.items():
        try:
            refuse_if_held(path, what, run.path)
        except EmbedkitError as error:
            raise EmbedkitError(f"{run.path} is not deleted: {error}") from None


def _put_back(aside: Path, run: RunFolder) -> None:
    try:
        aside.rename(run.path)
    except OSError as error:
        raise EmbedkitError(
            f"{run.path} was renamed to {aside} to be deleted, and then a process began to work on it. It could not be "
            f"renamed back ({error.strerror}): move {aside} to {run.path}"
        ) from error


def _deleting(run: RunFolder) -> list[Path]:
    """Folders of this run that are being deleted, those that killed deletions left too."""
    beginning = f"{DELETING}{run.name}-"
    folders = sorted(run.path.parent.iterdir())
    return [path for path in folders if path.name.startswith(beginning) and len(path.name) == len(beginning) + 8]
