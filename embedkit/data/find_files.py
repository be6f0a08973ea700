"""Finds the files of a data set: files, folders and patterns, as --dataset names them."""

import glob
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from embedkit.data.dataset import SUFFIXES
from embedkit.data.hub_id import explain_no_path
from embedkit.errors import UsageError
from embedkit.run import require_utf8

log = logging.getLogger(__name__)

NO_DATA = "no Parquet or JSONL file there"
HIDDEN = (".", "_")
"""Other programs keep their own files under names that begin so: .ipynb_checkpoints, _SUCCESS, _delta_log."""
LOST_AND_FOUND = "lost+found"
"""In the top folder of a file system; only root may list it."""


@dataclass
class _Ignored:
    """What is not read below a folder (relative to it), or of what a pattern matches.

    hidden: names that begin with HIDDEN. foreign: files in a different format. folders: links to folders, and folders
    that a pattern matches as if they were files.
    """

    hidden: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = (
            (self.hidden, "skipped: names that begin with . or _ are not data"),
            (self.foreign, "not read: files that are neither Parquet nor JSONL"),
            (self.folders, "not read: links to folders, and folders that a pattern matches"),
        )
        return "; ".join(f"{len(paths):,} {why} (the first: {min(paths)})" for paths, why in kinds if paths)


def find_files(datasets: Sequence[str | Path]) -> list[Path]:
    """Find the data files that the arguments name, each in sorted order.

    Below a folder, names that begin with `.` or `_` are skipped. What is not read is logged.

    Args:
        datasets: text is a file, a folder, or if there is neither, a pattern, as it was typed. A Path is a file or a
            folder, and never a pattern.

    Raises:
        UsageError: an argument names no data file, a file has a different format, or a file is named twice.
    """
    found: list[Path] = []
    for dataset in datasets:
        if not str(dataset).strip():
            raise UsageError("--dataset is empty")
        path = Path(dataset)
        ignored = _Ignored()
        if path.is_dir():
            matches = _in_folder(path, ignored)
        elif path.is_file():
            matches = [path]
        elif isinstance(dataset, str) and glob.has_magic(dataset):
            matches = _matching(dataset, ignored)
        else:
            raise UsageError(explain_no_path("--dataset", dataset, NO_DATA))
        notice = str(ignored)
        if not matches:
            raise UsageError(f"--dataset {dataset}: {NO_DATA}{'; ' if notice else ''}{notice}")
        for match in matches:
            if match.suffix not in SUFFIXES:
                raise UsageError(f"--dataset {match}: only {' and '.join(SUFFIXES)} files are read")
            require_utf8("--dataset", match.absolute())
        if notice:
            log.warning("--dataset %s: %s", dataset, notice)
        found += [match.absolute() for match in matches]
    _check_no_file_twice(found)
    return found


def _in_folder(folder: Path, ignored: _Ignored) -> list[Path]:
    """The data files below a folder, sorted. Raises OSError if a folder cannot be listed: rows would be missing."""

    def fail(error: OSError) -> None:
        raise error

    files = []
    for root, folders, names in os.walk(folder, onerror=fail):
        inside = Path(root)
        hidden = {name for name in (*folders, *names) if name.startswith(HIDDEN) or name == LOST_AND_FOUND}
        ignored.hidden += [(inside / name).relative_to(folder) for name in hidden]
        folders[:] = [name for name in folders if name not in hidden]
        ignored.folders += [path.relative_to(folder) for name in folders if (path := inside / name).is_symlink()]
        for path in (inside / name for name in names if name not in hidden):
            if path.suffix not in SUFFIXES:
                ignored.foreign.append(path.relative_to(folder))
            elif _is_whole(path):
                files.append(path)
    return sorted(files)


def _matching(pattern: str, ignored: _Ignored) -> list[Path]:
    """The files that a pattern matches. A wildcard matches no hidden name, as in a shell."""
    written = [part for part in Path(pattern).parts if part.startswith(HIDDEN)]
    files: list[Path] = []
    for path in map(Path, sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207
        hidden = [part for part in path.parts if part.startswith(HIDDEN)]
        if not all(any(fnmatchcase(part, typed) for typed in written) for part in hidden):
            ignored.hidden.append(path)
        elif path.is_dir():
            ignored.folders += [path] if path.suffix in SUFFIXES else []
        elif _is_whole(path):
            files.append(path)
    return files


def _is_whole(path: Path) -> bool:
    """Whether a name is a file. Raises UsageError if it is a link that leads nowhere: its rows would be missing."""
    if path.is_symlink() and not path.exists():
        raise UsageError(f"--dataset {path}: a link to {path.readlink()}, which does not exist")
    return path.is_file()


def _check_no_file_twice(paths: Sequence[Path]) -> None:
    """Raise UsageError if two of the paths are the same.

    Two links to one file are allowed: the Hub's cache stores files of equal content once.
    """
    real = [os.path.normpath(path) for path in paths]
    if len(set(real)) != len(real):
        twice = next(path for path in paths if real.count(os.path.normpath(path)) > 1)
        raise UsageError(f"--dataset names {twice} twice; its rows would count twice")
