"""What the first rows of a data set look like: its chats' format, keys and roles, and a text as it will be embedded."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from embedkit.data import ChatRules, Columns, NotAChatError, chat_frame, columns_of, message_list, peek, read_chat
from embedkit.documents import RunConfig
from embedkit.prepare.extract import extract, view_text

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
    found = FirstRows()
    if columns.messages is None:
        return found
    values: list[Any] = []
    for path in config.locations.data:
        values = peek(Path(path), columns.messages)
        if values:
            break
    found.rows = len(values)
    for value in values:
        _count(value, found)
    found.text = _first_text(values, config, columns)
    return found


def describe(config: RunConfig, found: FirstRows) -> list[str]:
    """Lines for a person: which format was found, and an example."""
    request = config.request
    if not found.rows:
        return []
    formats = ", ".join(f"{name} in {count}" for name, count in found.formats.most_common()) or "no format that is read"
    lines = [f"Column {request.messages_column!r}: {formats} of the first {found.rows} rows"]
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


def _first_text(values: list[Any], config: RunConfig, columns: Columns) -> tuple[int, str] | None:
    """The text of the first view of the first row that has one."""
    request = config.request
    for row, value in enumerate(values):
        try:
            chat = read_chat(value, ChatRules(columns.chat_format, columns.reasoning))
        except NotAChatError:
            continue
        frame = chat_frame(chat, columns).with_columns(pl.lit(row).alias("row"), pl.lit("").alias("dataset_source"))
        texts, _ = extract(frame, request.think_format, request.chat_format)
        text = texts.select(view_text(request.views[0])).to_series()
        if len(text) and text[0]:
            return row, request.prefix + text[0]
    return None
