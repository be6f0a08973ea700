"""Folders that `datasets` writes: a data set by `Dataset.save_to_disk`, or a folder of one per split by `DatasetDict`.

Source: `datasets`, arrow_dataset.py and dataset_dict.py. `state.json` lists the Arrow files in order, and
`dataset_dict.json` the splits.
"""

import json
from pathlib import Path, PurePath
from typing import Any

from embedkit.errors import EmbedkitError, UsageError

STATE, SPLITS = "state.json", "dataset_dict.json"
BOOKKEEPING = {"dataset_info.json", SPLITS, "dataset_infos.json"}
"""Names that `datasets` gives to files that have no rows. So is STATE, beside a dataset_info.json."""
ALL_SPLITS = "all"
"""What --split names all splits by."""


def is_bookkeeping(path: Path) -> bool:
    """Whether a file is one of those that `datasets` writes beside rows."""
    return path.name in BOOKKEEPING or (path.name == STATE and _is_saved(path.parent))


def saved_files(folder: Path) -> list[str] | None:
    """Names of the Arrow files of a saved data set, in order; None if the folder is none.

    Raises:
        UsageError: it has a selection of rows, as early versions of `datasets` saved it.
        EmbedkitError: state.json is damaged, or a file that it lists is missing.
    """
    if not _is_saved(folder):
        return None
    state = _read(folder / STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UsageError(f"--dataset {folder}: a selection of rows, saved by an early `datasets`; save it again")
    try:
        names = [str(file["filename"]) for file in state["_data_files"]]
    except (KeyError, TypeError):
        raise EmbedkitError(f"{folder / STATE}: it lists no _data_files; save the data set again") from None
    for name in names:
        if PurePath(name).name != name or not (folder / name).is_file():
            raise EmbedkitError(f"{folder / name}: missing, and {STATE} lists it; fetch or save the data set again")
    return names


def saved_splits(folder: Path) -> list[str] | None:
    """Names of the splits of a saved DatasetDict, in order; None if the folder is none. Raises as saved_files."""
    if not (folder / SPLITS).is_file():
        return None
    splits = _read(folder / SPLITS).get("splits")
    if not isinstance(splits, list) or not all(
        isinstance(name, str) and PurePath(name).name == name for name in splits
    ):
        raise EmbedkitError(f"{folder / SPLITS}: it lists no splits; save the data set again")
    for name in splits:
        if not (folder / name).is_dir():
            raise EmbedkitError(f"{folder / name}: missing, and {SPLITS} lists it; fetch or save the data set again")
    return splits


class SplitChoice:
    """The split that was asked for, and whether a folder had it. asked: None for nothing, `all` for all splits."""

    def __init__(self, asked: str | None) -> None:
        self.asked = asked
        self.is_used = False

    def choose(self, folder: Path, splits: list[str]) -> list[str]:
        """The splits of a folder to read. Raises UsageError if it lacks the one asked for, or several are there."""
        self.is_used = True
        if self.asked in splits:
            return [self.asked] if self.asked else []
        if self.asked == ALL_SPLITS or (self.asked is None and len(splits) <= 1):
            return splits
        there = f"{', '.join(splits)} (or {ALL_SPLITS})"
        if self.asked is None:
            raise UsageError(f"--dataset {folder}: it has several splits; name one by --split: {there}")
        raise UsageError(f"--split {self.asked}: {folder} has no such split; there are: {there}")


def _is_saved(folder: Path) -> bool:
    return (folder / STATE).is_file() and (folder / "dataset_info.json").is_file()


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise EmbedkitError(f"{path}: not readable JSON: {error}; save the data set again") from None
    if not isinstance(value, dict):
        raise EmbedkitError(f"{path}: not a JSON object; save the data set again")
    return value
