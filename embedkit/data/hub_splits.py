"""Finds the files of a split in a data set's repository, as `load_dataset` finds them.

`datasets` decides, from the README's configurations or from file names. It sees a folder of empty files with the
repository's names, so it uses no network and fetches, converts and runs nothing.
"""

import glob
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from embedkit.data.dataset import READABLE, READERS, has_reader
from embedkit.data.left_out import is_hidden
from embedkit.data.saved_folders import ALL_SPLITS
from embedkit.errors import EmbedkitError, UsageError

README, STANDALONE = "README.md", ".huggingface.yaml"
CARD_FILES = (README, STANDALONE, "dataset_infos.json")
"""Files that `datasets` reads to find the configurations of a repository."""
DATA_SUFFIXES = (".avro", ".orc", ".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip", ".tar")
"""Suffixes of files that probably have rows, in formats that are not read."""


@dataclass(frozen=True)
class ChosenFiles:
    """Files of a split, in the order in which load_dataset reads them.

    left_out: of the only configuration, files that look like data and are in no split.
    """

    config: str
    split: str
    files: tuple[str, ...]
    other_splits: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def choose_files(repo: str, names: Collection[str], cards: Path, config: str | None, split: str | None) -> ChosenFiles:
    """Choose the files of one split of a configuration.

    Args:
        repo: the data set's id.
        names: all files of the repository.
        cards: a folder with the files of CARD_FILES that the repository has.
        config: None for the only or the default configuration.
        split: None for `train`, or the only split; `all` for all splits, in the data set's order.

    Raises:
        UsageError: there is no such configuration or split; there are several and none is named; a file has a
            format that embedkit does not read.
    """
    with tempfile.TemporaryDirectory(prefix="embedkit-", dir=_folder_without_pattern()) as temporary:
        folder = Path(temporary).resolve() / PurePosixPath(repo).name
        _make_skeleton(folder, names, cards)
        try:
            config, splits, is_only = _read_splits(repo, folder, config)
        except EmbedkitError:
            raise
        except Exception as error:
            raise UsageError(_explained(repo, error)) from error
    chosen = _split_of(repo, splits, split)
    files = tuple(dict.fromkeys(file for name in chosen for file in splits[name]))
    for file in files:
        if not has_reader(PurePosixPath(file)):
            raise UsageError(
                f"--dataset {repo}: config {config}, split {', '.join(chosen)} has {file}; only "
                f"{READABLE} files are read"
            )
    others = tuple(name for name in splits if name not in chosen)
    in_splits = {file for its in splits.values() for file in its}
    left_out = [name for name in sorted(names) if is_only and _looks_like_data(name) and name not in in_splits]
    return ChosenFiles(config, split or chosen[0], files, others, tuple(left_out))


def _looks_like_data(name: str) -> bool:
    is_hidden_or_card = name in CARD_FILES or any(map(is_hidden, PurePosixPath(name).parts))
    return not is_hidden_or_card and name.lower().endswith((*READERS, *DATA_SUFFIXES))


def _folder_without_pattern() -> str:
    """A folder for temporary files whose path is no pattern: `datasets` finds files by globs below it."""
    named = tempfile.gettempdir()
    return named if glob.escape(named) == named and "::" not in named else "/tmp"  # noqa: S108


def _make_skeleton(folder: Path, names: Collection[str], cards: Path) -> None:
    """Make the folder of empty files, with the real files of CARD_FILES."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise EmbedkitError(f"the Hub lists a file that no repository can have: {name!r}")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if name not in CARD_FILES:
            (folder / path).touch()
        elif name != README or (cards / name).read_bytes().startswith(b"---"):  # else it has no metadata
            shutil.copyfile(cards / name, folder / path)


def _read_splits(repo: str, folder: Path, config: str | None) -> tuple[str, dict[str, list[str]], bool]:
    """The configuration to read, its files by split, and whether it is the only one."""
    import datasets

    datasets.disable_progress_bars()
    _require_own_files(repo, folder)
    configs = datasets.get_dataset_config_names(str(folder))
    default = configs[0] if len(configs) == 1 else datasets.get_dataset_default_config_name(str(folder))
    if config is None and default is None:
        raise UsageError(f"--dataset {repo}: it has several configurations; name one by --config: {', '.join(configs)}")
    if config is not None and config not in configs:
        raise UsageError(f"--config {config}: {repo} has no such configuration; there are: {', '.join(configs)}")
    chosen = str(config or default)
    builder = datasets.load_dataset_builder(str(folder), name=chosen, cache_dir=str(folder.parent / "cache"))
    files: dict[Any, list[str]] = builder.config.data_files
    splits = {
        str(split): [Path(path).relative_to(folder).as_posix() for path in paths] for split, paths in files.items()
    }
    return chosen, splits, len(configs) == 1


def _require_own_files(repo: str, folder: Path) -> None:
    """Raise UsageError if the README names files outside the repository.

    No commit pins such files, and the user's token must not go there.
    """
    from huggingface_hub import DatasetCard

    readme, standalone = folder / README, folder / STANDALONE
    cards = [readme.read_text(encoding="utf-8")] if readme.exists() else []
    cards += [f"---\n{standalone.read_text(encoding='utf-8')}\n---\n"] if standalone.exists() else []
    for card in cards:
        for config in DatasetCard(card, ignore_metadata_errors=True).data.get("configs") or []:
            for text in _texts([config.get("data_files"), config.get("data_dir")]):
                if "://" in text or "::" in text or text.startswith(("/", "~")) or ".." in PurePosixPath(text).parts:
                    raise UsageError(
                        f"--dataset {repo}: its README takes files from elsewhere ({text}); fetch them and name "
                        "them by their paths"
                    )


def _texts(value: Any) -> Iterator[str]:
    """All texts in a YAML value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _split_of(repo: str, splits: dict[str, list[str]], split: str | None) -> list[str]:
    """Names of the splits to read."""
    if split is None and ("train" in splits or len(splits) == 1):
        return ["train"] if "train" in splits else list(splits)
    if split in splits:
        return [split]
    if split == ALL_SPLITS:
        return list(splits)
    there = f"{', '.join(splits)} (or {ALL_SPLITS})"
    if split is None:
        raise UsageError(f"--dataset {repo}: it has several splits and none is train; name one by --split: {there}")
    raise UsageError(f"--split {split}: {repo} has no such split; there are: {there}")


def _explained(repo: str, error: Exception) -> str:
    """The message for an error of `datasets`."""
    lines = str(error).strip().splitlines()
    if "scripts are no longer supported" in str(error):
        return (
            f"--dataset {repo}: it is loaded by a Python script, and scripts are never run. Try "
            "--revision refs/convert/parquet, where the Hub keeps many data sets as Parquet"
        )
    if isinstance(error, FileNotFoundError):
        return f"--dataset {repo}: `datasets` finds no data files in it; only {READABLE} files are read"
    reason = lines[0] if lines else type(error).__name__
    return f"--dataset {repo}: `datasets` cannot tell which files are its rows: {reason}"
