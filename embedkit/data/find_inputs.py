"""Finds what a run reads, on this machine or on the Hub: the files of the data set, the folder of the model."""

from collections.abc import Sequence
from pathlib import Path

from embedkit.data.find_files import find_files
from embedkit.data.hub import DataSource, fetch_dataset, fetch_model
from embedkit.data.hub_id import explain_no_path, hub_id
from embedkit.data.typed_path import expand_home
from embedkit.errors import UsageError
from embedkit.run import require_utf8


def find_dataset(
    datasets: Sequence[str | Path], revision: str | None, config: str | None, split: str | None
) -> DataSource:
    """Find the files of a data set, or fetch those of a data set of the Hub.

    Args:
        datasets: one repository of the Hub, or what find_files takes.
        revision: commit, tag or branch, for the Hub only.
        config: configuration, for the Hub only.
        split: split, for the Hub and for folders that `datasets` saved with several splits.

    Raises:
        UsageError: there is no such data set, or the arguments exclude each other.
        EmbedkitError: as fetch_dataset.
    """
    repos = _repos(datasets)
    if not repos:
        files = find_files(datasets, split)
        if config is not None or revision is not None:
            raise UsageError("--config and --revision are for data sets of the Hub; for local data, name the files")
        return DataSource(files)
    if len(datasets) > 1:
        raise UsageError(f"--dataset {repos[0]}: a data set of the Hub must be the only --dataset")
    return fetch_dataset(repos[0], revision, config, split)


def is_on_hub(datasets: Sequence[str | Path]) -> bool:
    """Whether the arguments name a data set of the Hub. Raises UsageError as find_dataset."""
    return bool(_repos(datasets))


def _repos(datasets: Sequence[str | Path]) -> list[str]:
    typed = [name for name in datasets if isinstance(name, str)]
    return [repo for name in typed if (repo := hub_id(name, "dataset")) is not None]


def find_model(name: str, revision: str | None) -> tuple[Path, str | None, str | None]:
    """Find a model's folder, or fetch it from the Hub. Returns the folder and, of the Hub, repository and commit.

    Raises UsageError if there is no such folder or repository, and else as fetch_model.
    """
    repo = hub_id(name, "model")
    if repo is not None:
        folder, commit = fetch_model(repo, revision)
        return folder, repo, commit
    folder = Path(expand_home(name))
    if not name.strip():
        raise UsageError("--model is empty")
    if not folder.exists():
        raise UsageError(explain_no_path("--model", name, "no such folder with a model's files"))
    if not folder.is_dir():
        raise UsageError(f"--model {name}: a file; name the folder with all of the model's files")
    if revision is not None:
        raise UsageError("--model-revision is for models of the Hub; a local folder has none")
    require_utf8("--model", folder.resolve())
    return folder, None, None
