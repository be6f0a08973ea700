"""The rows of a data set as a frame: the columns that every reader yields."""

from collections.abc import Sequence

import polars as pl

from embedkit.data.chat_values import Chat, message_fields
from embedkit.data.columns import LEFT_OUT_COLUMN, MESSAGES_COLUMN, MISFIT_COLUMN, SOURCE_COLUMN, Columns, text_column
from embedkit.data.json_chats import Row


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


def chat_frame(chat: Chat, columns: Columns) -> pl.DataFrame:
    """A frame of one chat."""
    texts = [None] * len(columns.texts)
    return row_frame([Row(chat, None, list(texts), None)], columns)
