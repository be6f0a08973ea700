"""Finds a file that is named twice, also by links: its rows would count twice."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from embedkit.errors import UsageError


def check_no_file_twice(paths: Sequence[Path]) -> None:
    """Raise UsageError if two of the paths lead to one file: by one name, through linked folders or by linked files.

    Links beside each other may lead to one file: somebody has named it twice on purpose. So may those in one snapshot
    of the Hub's cache, which stores files of equal content once.
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
        if name in by_name or (other is not None and not _may_share(other, path)):
            raise UsageError(
                f"--dataset names one file twice, as {by_name.get(name, other)} and as {path}; its rows would count "
                "twice. Name one of them; if both shall count, copy the file"
            )
        by_name[name] = path
        by_file.setdefault(file, path)


def _may_share(one: Path, other: Path) -> bool:
    """Whether two paths are links in one folder, or in one snapshot of the Hub's cache."""
    return one.is_symlink() and other.is_symlink() and _place(one) == _place(other)


def _place(link: Path) -> Path:
    """The folder of a link, or of the Hub's cache `snapshots/<commit>`, beside the folder `blobs` that it leads to."""
    folder, blobs = link.parent.resolve(), link.resolve().parent
    if blobs.name != "blobs":
        return folder
    return next((one for one in (folder, *folder.parents) if one.parent == blobs.parent / "snapshots"), folder)
