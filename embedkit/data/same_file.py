"""Finds a file that is named twice, also by links: its rows would count twice."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from embedkit.errors import UsageError


def check_no_file_twice(paths: Sequence[Path]) -> None:
    """Raise UsageError if two of the paths lead to one file: by one name, through linked folders or by linked files.

    Two links in one snapshot of the Hub's cache are allowed: the cache stores files of equal content once.
    """
    resolve = cache(os.path.realpath)
    by_name: dict[str, Path] = {}
    by_file: dict[tuple[int, ...], Path] = {}
    for path in paths:
        name = os.path.join(resolve(path.parent), path.name)  # noqa: PTH118
        status = path.stat()
        # Numbers of files repeat on some network file systems; size and time hardly do.
        file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        other = by_file.get(file)
        if name in by_name or (other is not None and not _in_one_snapshot(other, path)):
            raise UsageError(
                f"--dataset names one file twice, as {by_name.get(name, other)} and as {path}; its rows would count "
                "twice. Name one of them; if both shall count, copy the file"
            )
        by_name[name] = path
        by_file.setdefault(file, path)


def _in_one_snapshot(one: Path, other: Path) -> bool:
    """Whether two links are in the same snapshot of a repository in the Hub's cache, and lead to a blob of it."""
    return _snapshot(one) is not None and _snapshot(one) == _snapshot(other)


def _snapshot(path: Path) -> Path | None:
    """The folder of the commit, `snapshots/<commit>`, beside the folder `blobs` that a link leads to."""
    blobs = path.resolve().parent
    if not path.is_symlink() or blobs.name != "blobs":
        return None
    snapshots = blobs.parent / "snapshots"
    folder = path.parent.resolve()
    return next((one for one in (folder, *folder.parents) if one.parent == snapshots), None)
