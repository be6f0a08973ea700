"""Columns that are not in the files but in their paths: partitions of Hive, and the source if there is none.

Source of the partitions' form: Apache Hive, `key=value` folders, with percent-encoded values.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from embedkit.data.columns import Columns, find_path
from embedkit.data.dataset import bare_name, column_names
from embedkit.errors import UsageError

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_SHARD = re.compile(r"([-_.]\d+[-_]?of[-_]?\d+|(^|[-_.])\d{4,})([-_.][0-9a-f]{8,})?([-_.]c\d+)?$")
"""How names of shards end: -00000-of-00400, _0001, with or without a hash."""
_NO_NAMES = {"", "part", "data", "shard", "chunk", "file", "rows"}


def columns_from_paths(
    paths: Sequence[Path], columns: Columns, *, repo: str | None, name_source: bool
) -> tuple[dict[str, str], ...]:
    """The columns that the first file lacks and the paths have, per file. Empty if there are none.

    Args:
        paths: the data files.
        columns: what is read.
        repo: the data set's id on the Hub, if it is from there.
        name_source: whether the source of a data set without one is named after the files.

    Raises UsageError if only some paths have a column.
    """
    there = column_names(paths[0]) if paths else []
    values: tuple[dict[str, str], ...] = tuple({} for _ in paths)
    for option, name in columns.named()[columns.messages is not None :]:
        if not there or find_path(there, name) is not None:
            continue
        found = [partitions(path).get(name) for path in paths]
        if name_source and name == columns.source and found[0] is None:
            found = [repo.rpartition("/")[2] if repo else source_name(path) for path in paths]
        if found[0] is None:
            continue  # check_columns says what there is
        for path, value, row in zip(paths, found, values, strict=True):
            if value is None:
                raise UsageError(f"{path}: no folder {name}=... in its path ({option}), which {paths[0]} has")
            row[name] = value
    return values if any(values) else ()


def partitions(path: Path) -> dict[str, str]:
    """The columns that a path's folders have as key=value. A null is an empty text."""
    pairs = (part.split("=", 1) for part in path.parent.parts if "=" in part)
    return {unquote(key): "" if value == HIVE_NULL else unquote(value) for key, value in pairs}


def source_name(path: Path) -> str:
    """A file's name as a source: without suffixes and the number of a shard; else the name of the nearest folder."""
    name = _SHARD.sub("", bare_name(path))
    if name.lower() not in _NO_NAMES:
        return name
    folders = (_SHARD.sub("", part) for part in reversed(path.absolute().parent.parts[1:]))
    return next((name for name in folders if name.lower() not in _NO_NAMES), bare_name(path))
