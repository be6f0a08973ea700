"""Finds the files of a data set: files, folders and patterns, as --dataset names them."""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
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


@dataclass
class _Ignored:
    """Files below a folder that are not read, relative to it.

    hidden: below a name that begins with HIDDEN. foreign: in a different format. links: links to folders.
    """

    hidden: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = (
            (self.hidden, "file", "skipped, since a name that begins with . or _ is not data"),
            (self.foreign, "file", "not read, since neither Parquet nor JSONL"),
            (self.links, "link to a folder", "not followed"),
        )
        return "; ".join(
            f"{len(paths):,} {_plural(what, len(paths))} {why} (the first: {paths[0]})"
            for paths, what, why in kinds
            if paths
        )


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
    """The data files below a folder."""
    files = []
    for path in sorted(_files_below(folder, ignored)):
        name = path.relative_to(folder)
        if any(part.startswith(HIDDEN) for part in name.parts):
            ignored.hidden.append(name)
        elif path.suffix in SUFFIXES:
            files.append(path)
        else:
            ignored.foreign.append(name)
    is_data = [path.suffix in SUFFIXES for path in ignored.hidden]
    ignored.hidden.sort(key=dict(zip(ignored.hidden, is_data, strict=True)).__getitem__, reverse=True)
    return files


def _files_below(folder: Path, ignored: _Ignored) -> Iterator[Path]:
    """All files below a folder. Raises OSError if a folder cannot be listed: rows would be missing."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=fail):
        links = [path for name in folders if (path := Path(root, name)).is_symlink()]
        ignored.links += sorted(path.relative_to(folder) for path in links)
        yield from (path for name in names if (path := Path(root, name)).is_file())


def _matching(pattern: str, ignored: _Ignored) -> list[Path]:
    """The files that a pattern matches. A wildcard matches no hidden name, as in a shell."""
    written = [part for part in Path(pattern).parts if part.startswith(HIDDEN)]
    files: list[Path] = []
    for path in map(Path, sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207
        if not path.is_file():
            continue
        hidden = [part for part in path.parts if part.startswith(HIDDEN)]
        is_written = all(any(fnmatchcase(part, typed) for typed in written) for part in hidden)
        (files if is_written else ignored.hidden).append(path)
    return files


def _check_no_file_twice(paths: Sequence[Path]) -> None:
    """Raise UsageError if two of the paths are the same.

    Two links to one file are allowed: the Hub's cache stores files of equal content once.
    """
    real = [os.path.normpath(path) for path in paths]
    if len(set(real)) != len(real):
        twice = next(path for path in paths if real.count(os.path.normpath(path)) > 1)
        raise UsageError(f"--dataset names {twice} twice; its rows would count twice")


def _plural(what: str, count: int) -> str:
    return what if count == 1 else what.replace("file", "files").replace("link", "links")
