"""Decides which columns of a new data set are read: what was typed, else what the files have."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedkit.data.chat_columns import chat_columns
from embedkit.data.columns import Columns
from embedkit.data.dataset import check_columns, column_names, peek
from embedkit.data.hub import DataSource
from embedkit.data.path_columns import columns_from_paths
from embedkit.errors import UsageError

MESSAGES, SOURCE = "messages", "dataset_source"
"""The columns' names where nothing else is asked for."""
USUAL = (MESSAGES, "conversations", "conversation")
"""Usual names of the column with the chats. The first that is there is read."""


def choose_columns(
    data: DataSource,
    wanted: Columns,
    path_columns: Sequence[dict[str, str]] | None,
    of_views: Sequence[str] = (),
) -> tuple[Columns, tuple[dict[str, str], ...]]:
    """Decide the columns, and check every file for them.

    Args:
        data: the data files.
        wanted: what was asked for; messages and source are None where nothing was.
        path_columns: those of the run if it exists.
        of_views: columns that views need besides the texts.

    Returns:
        The columns, and per file those that come from its path.

    Raises:
        UsageError: a column is missing or cannot be read, or no column has chats.
        EmbedkitError: a file is damaged.
    """
    source = wanted.source if wanted.source is not None else SOURCE
    columns = replace(wanted, source=source, messages=None if wanted.texts else wanted.messages)
    if columns.messages is None and not wanted.texts:
        columns = replace(columns, messages=_find_chats(data.paths, columns))
    columns = replace(columns, texts=tuple(dict.fromkeys((*wanted.texts, *of_views))))
    from_paths = tuple(path_columns) if path_columns is not None else ()
    if path_columns is None:
        is_unnamed = wanted.source is None
        from_paths = columns_from_paths(data.paths, columns, repo=data.repo, name_source=is_unnamed)
    for i, path in enumerate(data.paths):
        check_columns(path, columns.without(from_paths[i]) if from_paths else columns)
    return columns, from_paths


def _find_chats(paths: Sequence[Path], columns: Columns) -> str:
    """The column with the chats: the first of the usual names, else the only one that looks like chats."""
    for path in paths:
        names = column_names(path)
        usual = [name for name in USUAL if name in names]
        if usual or not names:
            if usual:
                return usual[0]
            continue
        found = [column for name in names for column in chat_columns(name, peek(path, name))]
        if len(found) == 1:
            return found[0]
        raise UsageError(f"{path}: {_explain(names, found)}")
    return MESSAGES  # no file has rows


def _explain(names: Sequence[str], found: Sequence[Any]) -> str:
    if found:
        return f"several columns have chats: {', '.join(found)}; name one by --messages-column"
    text = next((name for name in ("text", "content", "body", "document") if name in names), None)
    hint = f"; for plain text: --text-column {text}" if text else "; for plain text, use --text-column"
    return (
        f"no column {' or '.join(USUAL)}, and none that looks like chats; there are: {', '.join(names)}. Name it by "
        f"--messages-column{hint}"
    )
