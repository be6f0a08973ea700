"""A folder for the files of a comparison. Its JSON file is written last, so a folder that has it is whole."""

from collections.abc import Collection
from pathlib import Path

from embedkit.errors import UsageError
from embedkit.storage import durable_mkdir, remove_temporaries


def require_own(folder: Path, files: Collection[str]) -> None:
    """Raise UsageError if a folder has anything but these files. Those of an earlier comparison are written again."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder}: is a file; type the path of a folder")
    others = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in others if name not in files and not name.startswith(".")]
    if others:
        raise UsageError(f"--out {folder}: has other files, such as {others[0]}; type the path of a new folder")


def begin(folder: Path, record: str) -> None:
    """Make the folder, and remove an earlier JSON file, so that the folder is not whole until the new one is there."""
    durable_mkdir(folder)
    remove_temporaries(folder)
    (folder / record).unlink(missing_ok=True)
