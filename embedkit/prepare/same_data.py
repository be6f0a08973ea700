"""Whether the data files are still those that a run was created for, and that its prepare began with."""

from collections.abc import Sequence
from pathlib import Path

from embedkit.changes import Change, data_changes, file_changes, how_to_go_on, show_changes
from embedkit.data import Dataset, identify
from embedkit.documents import DataIndex, FileRecord, RunConfig
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder


def require_same_data(run: RunFolder, config: RunConfig) -> None:
    """Raise EmbedkitError listing the data files that are missing, or that are no longer those of the request."""
    paths = config.locations.data
    found = [identify(Path(path)) if Path(path).is_file() else None for path in paths]
    changes = data_changes(config.request.data, found, paths, paths)
    if not changes:
        return
    missing = [path for path, file in zip(paths, found, strict=True) if file is None]
    if missing:
        what = f"{missing[0]}: the data file is missing. If files were moved, name their new place with --dataset"
    else:
        first = next(path for path, a, b in zip(paths, config.request.data, found, strict=True) if a != b)
        what = f"{first}: the data file changed since the run was created"
    raise _changed(run, config, what, changes)


def require_same_index(run: RunFolder, config: RunConfig, dataset: Dataset, there: DataIndex, index: DataIndex) -> None:
    """Raise EmbedkitError unless the data give the index that prepare began with.

    The error lists the JSONL files that differ. Their sizes, which the request has, are the same.
    """
    if there == index:
        return
    paths = [str(file.path) for file in dataset.files]
    old, new = (_with_digests(config, found.jsonl_sha256) for found in (there, index))
    changes = file_changes("data", old, new, paths, paths) if len(there.jsonl_sha256) == len(paths) else []
    raise _changed(run, config, f"{run.data_index}: the data changed since prepare began", changes)


def _with_digests(config: RunConfig, digests: Sequence[str | None]) -> list[FileRecord]:
    """The data files with these sha256 of their bytes; those of another length are left out."""
    files = zip(config.request.data, digests, strict=False)
    return [FileRecord(name=file.name, bytes=file.bytes, sha256=digest or "") for file, digest in files]


def _changed(run: RunFolder, config: RunConfig, what: str, changes: Sequence[Change]) -> EmbedkitError:
    listed = f" (the run's -> now):\n{show_changes(changes)}" if changes else ""
    return EmbedkitError(f"{what}{listed}\n{how_to_go_on(run, config)}")
