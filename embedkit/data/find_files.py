"""Finds the files of a data set: files, folders and patterns, as --dataset names them.

A file that looks like data is read, or it is listed as left out. Hidden and temporary names are never read.
"""

import glob
import logging
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from embedkit.data.dataset import READABLE, has_reader
from embedkit.data.hub_id import explain_no_path
from embedkit.data.left_out import LeftOut, is_hidden
from embedkit.data.same_file import check_no_file_twice
from embedkit.data.saved_folders import SplitChoice, is_bookkeeping, saved_files, saved_splits
from embedkit.data.text_file import format_suffix
from embedkit.data.typed_path import expand_home
from embedkit.errors import UsageError
from embedkit.run import require_utf8

log = logging.getLogger(__name__)

NO_DATA = "no data file there"
SECONDARY = {".json", ".csv", ".tsv"}
"""Beside other data files, files of these formats are hardly rows: stats.json, labels.csv."""


def find_files(datasets: Sequence[str | Path], split: str | None = None) -> list[Path]:
    """Find the data files that the arguments name, each in sorted order.

    Below a folder, hidden and temporary names are skipped, and links to folders are followed. A folder that
    `datasets` saved has its order. What is not read is logged.

    Args:
        datasets: text is a file, a folder, or if there is neither, a pattern, as it was typed. A Path is a file or a
            folder, and never a pattern.
        split: of folders that `datasets` saved with several splits.

    Raises:
        UsageError: an argument names no data file, a file has a different format, a file is found twice, a link
            leads nowhere or to a folder around it, or the split is not there.
        EmbedkitError: a folder that `datasets` saved is damaged.
    """
    found: list[Path] = []
    typed: list[Path] = []
    splits = SplitChoice(split)
    for dataset in datasets:
        if not str(dataset).strip():
            raise UsageError("--dataset is empty")
        left_out = LeftOut()
        matches = _find(expand_home(dataset) if isinstance(dataset, str) else dataset, left_out, splits)
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
    if split is not None and not splits.is_used:
        raise UsageError(
            "--split is for data sets of the Hub and for folders with splits that `datasets` saved; for other local "
            "data, name the files"
        )
    return found


def _find(dataset: str | Path, left_out: LeftOut, splits: SplitChoice) -> list[Path]:
    """The data files that one argument names, in order."""
    path = Path(dataset)
    if path.is_dir():
        left_out.folder = path
        places = _in_folder(path, left_out, splits)
        return sorted(places, key=places.__getitem__)
    if path.is_file():
        if not has_reader(path):
            raise UsageError(f"--dataset {path}: only {READABLE} files are read")
        return [path]
    if isinstance(dataset, str) and glob.has_magic(dataset):
        return _matching(dataset, left_out, splits)
    raise UsageError(explain_no_path("--dataset", dataset, NO_DATA))


def _in_folder(folder: Path, left_out: LeftOut, splits: SplitChoice) -> dict[Path, Path]:
    """The data files below a folder, and by what name each is sorted.

    Raises OSError if a folder cannot be listed: rows would be missing.
    """

    def fail(error: OSError) -> None:
        raise error

    ranks: dict[Path, str] = {}
    found: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        inside = Path(root)
        hidden = {name for name in (*folders, *names) if is_hidden(name)}
        left_out.hidden |= {inside / name for name in hidden}
        ranked = _of_dict(inside, folders, left_out, splits) or saved_files(inside) or []
        ranks |= {inside / name: f"{rank:09}" for rank, name in enumerate(ranked)}
        folders[:] = [name for name in folders if name not in hidden]
        for name in folders:
            _check_no_cycle(inside / name, folder)
        visible = [inside / name for name in names if name not in hidden]
        found += _chosen(visible, {inside / name for name in ranked}, left_out)
    return {path: _sorted_as(path, folder, ranks) for path in _without_secondary(found, left_out)}


def _of_dict(inside: Path, folders: list[str], left_out: LeftOut, splits: SplitChoice) -> list[str] | None:
    """The splits to read if a folder is a saved DatasetDict. Other folders in it are dropped from `folders`."""
    there = saved_splits(inside)
    if there is None:
        return None
    chosen = splits.choose(inside, there)
    left_out.unlisted |= {inside / name for name in folders if name not in there and not is_hidden(name)}
    folders[:] = [name for name in folders if name in chosen]
    return chosen


def _chosen(paths: list[Path], listed: set[Path], left_out: LeftOut) -> list[Path]:
    """The data files in one folder. listed: what it says itself that it has, if anything."""
    found = []
    for path in paths:
        if is_bookkeeping(path):
            if not listed:
                left_out.bookkeeping.add(path)
        elif listed and path not in listed:
            left_out.unlisted.add(path)
        elif _is_data(path):
            found.append(path)
        else:
            left_out.foreign.add(path)
    return found


def _without_secondary(found: list[Path], left_out: LeftOut) -> list[Path]:
    """The files, without SECONDARY if there are others."""
    secondary = {path for path in found if format_suffix(path) in SECONDARY}
    if len(secondary) == len(found):
        return found
    left_out.beside |= secondary
    return [path for path in found if path not in secondary]


def _sorted_as(path: Path, folder: Path, ranks: dict[Path, str]) -> Path:
    """The path with the ranks of names in place of the names."""
    place = place_as = folder
    for name in path.relative_to(folder).parts:
        place = place / name
        place_as = place_as / ranks.get(place, name)
    return place_as


def _matching(pattern: str, left_out: LeftOut, splits: SplitChoice) -> list[Path]:
    """The files that a pattern matches, and those in the folders that it matches, sorted.

    A wildcard matches no hidden name, as in a shell, and no bookkeeping.
    """
    typed = [part for part in Path(pattern).parts if is_hidden(part)]
    files: dict[Path, Path] = {}  # `**` matches a folder and each file in it
    for path in map(Path, glob.glob(pattern, recursive=True)):  # noqa: PTH207
        hidden = [part for part in path.parts if is_hidden(part)]
        if not all(any(fnmatchcase(part, name) for name in typed) for part in hidden):
            left_out.hidden.add(path)
        elif path.is_dir():
            files |= _in_folder(path, left_out, splits)
        elif is_bookkeeping(path) and path.name != PurePath(pattern).name:
            left_out.bookkeeping.add(path)
        elif _is_data(path):
            files.setdefault(path, path)
        else:
            left_out.foreign.add(path)
    left_out.beside -= files.keys()
    return sorted(files, key=lambda path: str(files[path]))


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
