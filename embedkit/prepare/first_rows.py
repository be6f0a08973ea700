"""What the first rows of a data set look like: its chats' format, keys and roles, and a text as it will be embedded."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from embedkit.data import ChatRules, Columns, NotAChatError, columns_of, message_list, peek, read_chat, values_frame
from embedkit.documents import Request, RunConfig
from embedkit.prepare.views import extract_texts, view_texts

EXAMPLE_CHARACTERS = 300
FORMATS = {"role": "OpenAI (role, content)", "from": "ShareGPT (from, value)"}
"""Formats of a message by the key of its role."""


@dataclass
class FirstRows:
    """The first rows of the first file that has any.

    formats: how many rows have which format. keys: of messages. roles: how many messages have which. text: of the first
    row that is kept, as it will be embedded, with its number.
    """

    rows: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    roles: Counter[str] = field(default_factory=Counter)
    text: tuple[int, str] | None = None


def look_at_first_rows(config: RunConfig) -> FirstRows:
    """Read the first rows of the data. Raises EmbedkitError if they cannot be read."""
    columns = columns_of(config.request)
    for number, path in enumerate(map(Path, config.locations.data)):
        from_path = config.request.path_columns[number] if config.request.path_columns else {}
        in_file = [name for name in (columns.messages, *columns.texts) if name is not None and name not in from_path]
        values = {name: peek(path, name) for name in in_file}
        rows = min(map(len, values.values()), default=0)
        if not rows:
            continue
        found = FirstRows(rows)
        for value in values[columns.messages] if columns.messages is not None else ():
            _count(value, found)
        constant = {name: [value] * rows for name, value in from_path.items()}
        found.text = _first_text(values | constant, rows, config.request, columns)
        return found
    return FirstRows()


def describe(config: RunConfig, found: FirstRows) -> list[str]:
    """Lines for a person: which format was found, and an example."""
    request = config.request
    if not found.rows:
        return []
    lines = [f"Plain text of the columns {', '.join(map(repr, request.text_columns))}"] if request.text_columns else []
    if found.formats:
        formats = ", ".join(f"{name} in {count}" for name, count in found.formats.most_common())
        lines.append(f"Column {request.messages_column!r}: {formats} of the first {found.rows} rows")
    if request.path_columns and request.source_column in request.path_columns[0]:
        names = sorted({row[request.source_column] for row in request.path_columns})
        lines.append(f"Source, from the paths of the files: {', '.join(names[:5])}{', ...' * (len(names) > 5)}")
    if found.text is None:
        lines.append("None of these rows has a text to embed")
    else:
        row, text = found.text
        shown = text if len(text) <= EXAMPLE_CHARACTERS else f"{text[:EXAMPLE_CHARACTERS]}..."
        lines.append(f"Row {row}, as it will be embedded ({len(text):,} characters): {shown!r}")
    return lines


def _count(value: Any, found: FirstRows) -> None:
    """Count the formats, keys and roles of a chat."""
    try:
        messages = [message for message in message_list(value) or () if isinstance(message, Mapping)]
        found.keys |= {str(key) for message in messages for key, its in message.items() if its is not None}
        read_chat(value, ChatRules("auto", reasoning=True))
    except NotAChatError as error:
        found.formats[f"no chat ({error})"] += 1
        return
    names = set()
    for message in messages:
        key = next((key for key in FORMATS if message.get(key) is not None), None)
        if key is not None:
            names.add(FORMATS[key])
            found.roles[str(message[key])] += 1
    found.formats.update(names or {"no messages"})


def _first_text(values: dict[str, list[Any]], rows: int, request: Request, columns: Columns) -> tuple[int, str] | None:
    """The number of the first row that has a text in the first view, and that text."""
    frame = values_frame(values, rows, columns).with_columns(
        pl.int_range(rows, dtype=pl.Int64).alias("row"), pl.lit("").alias("dataset_source")
    )
    texts, _ = extract_texts(frame, request)
    view = request.views[0]
    there = texts.select("row", view_texts(request)[view]).filter(pl.col(view) != "")
    return (there["row"][0], request.prefix + there[view][0]) if there.height else None
