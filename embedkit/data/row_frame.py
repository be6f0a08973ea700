"""The rows of a data set as a frame: the columns that every reader yields."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from embedkit.data.chat_values import ChatRules, NotAChatError, message_fields, read_chat
from embedkit.data.columns import LEFT_OUT_COLUMN, MESSAGES_COLUMN, MISFIT_COLUMN, SOURCE_COLUMN, Columns, text_column
from embedkit.data.json_chats import NO_CHAT, Row, plain_text
from embedkit.documents import Reason


def messages_type(reasoning: bool = False) -> pl.List:
    """Type of the messages after reading: a list of messages with the fields of `message_fields`."""
    return pl.List(pl.Struct(dict.fromkeys(message_fields(reasoning), pl.String)))


def frame_schema(columns: Columns) -> dict[str, pl.DataType]:
    """The columns of a reader's frames, and their types."""
    schema: dict[str, pl.DataType] = {}
    if columns.messages is not None:
        schema |= {MESSAGES_COLUMN: messages_type(columns.reasoning), LEFT_OUT_COLUMN: pl.List(pl.String)}
    if columns.messages is not None or columns.texts:
        schema[MISFIT_COLUMN] = pl.String()
    if columns.source is not None:
        schema[SOURCE_COLUMN] = pl.String()
    return schema | {text_column(name): pl.String() for name in columns.texts}


def row_frame(rows: Sequence[Row], columns: Columns) -> pl.DataFrame:
    """A frame of rows that were decoded one by one."""
    values = {
        MESSAGES_COLUMN: [row.chat.messages for row in rows],
        LEFT_OUT_COLUMN: [row.chat.left_out or None for row in rows],
        MISFIT_COLUMN: [row.misfit for row in rows],
        SOURCE_COLUMN: [row.source for row in rows],
    } | {text_column(name): [row.texts[i] for row in rows] for i, name in enumerate(columns.texts)}
    schema = frame_schema(columns)
    return pl.DataFrame({name: values[name] for name in schema}, schema=schema)


def values_frame(values: Mapping[str, Sequence[Any]], rows: int, columns: Columns) -> pl.DataFrame:
    """A frame of the first rows of columns that are plain Python values."""
    return row_frame([_row({name: its[i] for name, its in values.items()}, columns) for i in range(rows)], columns)


def _row(values: Mapping[str, Any], columns: Columns) -> Row:
    chat = NO_CHAT
    misfit: Reason | None = None
    if columns.messages is not None:
        try:
            chat = read_chat(values[columns.messages], ChatRules(columns.chat_format, columns.reasoning))
        except NotAChatError:
            misfit = "not_a_chat"
    try:
        texts = [plain_text(_simple(values[name])) for name in columns.texts]
    except TypeError:
        texts, misfit = [None] * len(columns.texts), misfit or "not_text"
    return Row(chat, None, texts, misfit)


def _simple(value: Any) -> Any:
    """A value that JSON has too: a date or a decimal as text."""
    return value if isinstance(value, str | int | float | list | Mapping | None) else str(value)
