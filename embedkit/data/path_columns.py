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
_SHARD = re.compile(
    r"([-_.]\d+[-_]?of[-_]?\d+"
    r"|(^|[-_.])\d{5,6}(-tid-.*)?|^(?!(19|20)\d\d$)\d{4,}(-tid-.*)?)"  # neither a year nor a day
    r"([-_.](?=[0-9a-f-]*\d)[0-9a-f][0-9a-f-]{6,}[0-9a-f])?([-_.]c\d+)?$"
)
"""How names of shards end: -00000-of-00400, _00001, with or without a hash, or what Spark adds."""
_CODEC = re.compile(r"\.(snappy|gz|gzip|zstd|zst|lz4|brotli)$")
"""What Spark puts before .parquet."""
_NO_NAME = re.compile(r"(part|data|shard|chunk|file|rows)?([-_.]?\d{1,3})?", re.IGNORECASE)
"""Names that say nothing of what is in a file."""


def columns_from_paths(
    paths: Sequence[Path], columns: Columns, *, repo: str | None, name_source: bool
) -> tuple[dict[str, str], ...]:
    """The columns that no file has and the paths have, per file. Empty if there are none.

    Args:
        paths: the data files.
        columns: what is read.
        repo: the data set's id on the Hub, if it is from there.
        name_source: whether the source of a data set without one is named after the files.

    Raises UsageError if only some paths have a column.
    """
    values: tuple[dict[str, str], ...] = tuple({} for _ in paths)
    there = [names for path in paths if (names := column_names(path))]  # a file without rows may have none
    for option, name in columns.named()[columns.messages is not None :]:
        if not there or any(find_path(names, name) is not None for names in there):
            continue  # check_columns finds the files that lack it
        found = [partitions(path).get(name) for path in paths]
        if name_source and name == columns.source and not any(value is not None for value in found):
            found = [repo.rpartition("/")[2] if repo else source_name(path) for path in paths]
        having = next((path for path, value in zip(paths, found, strict=True) if value is not None), None)
        if having is None:
            continue  # check_columns says what there is
        for path, value, row in zip(paths, found, values, strict=True):
            if value is None:
                raise UsageError(f"{path}: no folder {name}=... in its path ({option}), which {having} has")
            row[name] = value
    return values if any(values) else ()


def partitions(path: Path) -> dict[str, str]:
    """The columns that a path's folders have as key=value. A null is an empty text."""
    pairs = (part.split("=", 1) for part in path.parent.parts if "=" in part)
    return {_unquoted(key): "" if value == HIVE_NULL else _unquoted(value) for key, value in pairs}


def _unquoted(text: str) -> str:
    """Percent-encoding decoded, unless it is not of UTF-8: then the name is meant as it is."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def source_name(path: Path) -> str:
    """A file's name as a source: without suffixes and the number of a shard; else the name of the nearest folder."""
    name = _SHARD.sub("", _CODEC.sub("", bare_name(path)))
    if not _NO_NAME.fullmatch(name):
        return name
    folders = (_SHARD.sub("", part) for part in reversed(path.absolute().parent.parts[1:]))
    return next((name for name in folders if not _NO_NAME.fullmatch(name)), bare_name(path))
