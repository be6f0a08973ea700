"""Finds the files of a data set: files, folders and patterns, as --dataset names them.

A file that looks like data is read, or it is listed as left out. Hidden and temporary names are never read.
"""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from embedkit.data.dataset import READABLE, has_reader
from embedkit.data.hub_id import explain_no_path
from embedkit.data.left_out import LeftOut, is_hidden
from embedkit.data.same_file import check_no_file_twice
from embedkit.errors import UsageError
from embedkit.run import require_utf8

log = logging.getLogger(__name__)

NO_DATA = "no Parquet or JSONL file there"


def find_files(datasets: Sequence[str | Path]) -> list[Path]:
    """Find the data files that the arguments name, each in sorted order.

    Below a folder, hidden and temporary names are skipped, and links to folders are followed. What is not read is
    logged.

    Args:
        datasets: text is a file, a folder, or if there is neither, a pattern, as it was typed. A Path is a file or a
            folder, and never a pattern.

    Raises:
        UsageError: an argument names no data file, a file has a different format, a file is found twice, or a link
            leads nowhere or to a folder around it.
    """
    found: list[Path] = []
    typed: list[Path] = []
    for dataset in datasets:
        if not str(dataset).strip():
            raise UsageError("--dataset is empty")
        left_out = LeftOut()
        matches = _find(dataset, left_out)
        notes = left_out.notes()
        if not matches:
            raise UsageError(f"--dataset {dataset}: {'; '.join((NO_DATA, *notes))}")
        for match in matches:
            require_utf8("--dataset", match.absolute())
        for note in notes:
            log.warning("--dataset %s: %s", dataset, note)
        found += [match.absolute() for match in matches]
        typed += [match.absolute() for match in matches if isinstance(dataset, str)]
    check_no_file_twice(typed)  # what a run has recorded was checked when it was made
    return found


def _find(dataset: str | Path, left_out: LeftOut) -> list[Path]:
    """The data files that one argument names, sorted."""
    path = Path(dataset)
    if path.is_dir():
        left_out.folder = path
        return sorted(_in_folder(path, left_out))
    if path.is_file():
        if not has_reader(path):
            raise UsageError(f"--dataset {path}: only {READABLE} files are read")
        return [path]
    if isinstance(dataset, str) and glob.has_magic(dataset):
        return _matching(dataset, left_out)
    raise UsageError(explain_no_path("--dataset", dataset, NO_DATA))


def _in_folder(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """Yield the data files below a folder. Raises OSError if a folder cannot be listed: rows would be missing."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        inside = Path(root)
        hidden = {name for name in (*folders, *names) if is_hidden(name)}
        left_out.hidden |= {inside / name for name in hidden}
        folders[:] = [name for name in folders if name not in hidden]
        for name in folders:
            _check_no_cycle(inside / name, folder)
        for path in (inside / name for name in names if name not in hidden):
            if _is_data(path):
                yield path
            else:
                left_out.foreign.add(path)


def _matching(pattern: str, left_out: LeftOut) -> list[Path]:
    """The files that a pattern matches, and those in the folders that it matches, sorted.

    A wildcard matches no hidden name, as in a shell.
    """
    typed = [part for part in Path(pattern).parts if is_hidden(part)]
    files: set[Path] = set()  # `**` matches a folder and each file in it
    for path in map(Path, glob.glob(pattern, recursive=True)):  # noqa: PTH207
        hidden = [part for part in path.parts if is_hidden(part)]
        if not all(any(fnmatchcase(part, name) for name in typed) for part in hidden):
            left_out.hidden.add(path)
        elif path.is_dir():
            files |= set(_in_folder(path, left_out))
        elif _is_data(path):
            files.add(path)
        else:
            left_out.foreign.add(path)
    return sorted(files, key=str)


def _is_data(path: Path) -> bool:
    """Whether a name is a file that is read. Raises UsageError if it is a link that leads nowhere."""
    if path.is_symlink() and not path.exists():
        raise UsageError(
            f"--dataset {path}: a link to {path.readlink()}, which does not exist; its rows would be missing. Restore "
            "the target, or remove the link"
        )
    return has_reader(path) and path.is_file()


def _check_no_cycle(path: Path, top: Path) -> None:
    """Raise UsageError if a folder below `top` is a link to a folder around it, whose files have no end."""
    if not path.is_symlink():
        return
    target = path.resolve()
    around = path.parent
    while True:
        if around.resolve().is_relative_to(target):
            raise UsageError(
                f"--dataset {path}: a link to {target}, a folder around it; its rows would be read without end. Remove "
                "the link, or name the folders to read"
            )
        if around == top:
            return
        around = around.parent
