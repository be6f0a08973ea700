"""Splits a chat into its texts: prompt, think, response, and the combined text that is embedded.

The rules (tests/support/reference.py states them as plain Python):
- The answer is the last message whose role is assistant. If there is none, or it is empty, the row is dropped as
  no_assistant.
- user_prompt: the contents of all messages before it, joined by a blank line. A null content is "".
- num_turns: the number of assistant messages in the row.
- think_format "classic". An answer is empty if its content is null or "". If it contains both <think> and </think>:
  think_text is the text between the first of each, stripped (empty if </think> comes first); response_text is the text
  after the first </think>, stripped. Otherwise think_text is empty and response_text is the whole answer.
- think_format "any". An answer with both tags, exactly as above, is split as above. Any other answer is split by
  think_tags.py, which knows more tags. In front of the think text, joined by a blank line, are the texts of the
  message's fields reasoning_content, reasoning and thinking, stripped; a text that is there twice counts once.
  An answer is empty if its content is null or "" and none of the fields has a text.
  These fields of earlier messages are no part of the prompt, as chat templates leave them out.
The text of a view (an empty one gets no vector):
- combined: prompt, think and response joined by a blank line each, stripped.
- think, response: that text alone, stripped.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from embedkit.data import ASSISTANT, CHAT_TEXTS, MISFIT_COLUMN, REASONING_FIELDS
from embedkit.documents import ChatFormat, ThinkFormat, View
from embedkit.prepare.answer import split_answers
from embedkit.prepare.think_tags import PYTHON_WHITESPACE, SEPARATOR

__all__ = ["PYTHON_WHITESPACE", "TEXT_COLUMNS", "VIEW_COLUMNS", "count_column", "empty_column", "extract", "view_text"]


def extract(
    rows: pl.DataFrame,
    think_format: ThinkFormat = "classic",
    chat_format: ChatFormat = "plain",
    columns: Sequence[str] = (),
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split chats into texts.

    Args:
        rows: (row, messages: list of struct{role, content}, dataset_source, misfit). For "any", the struct has those of
            REASONING_FIELDS that the data have.
        think_format: where reasoning is looked for.
        chat_format: how the messages were written.
        columns: further columns of text to keep; a null becomes "".

    Returns:
        texts: (row, dataset_source, user_prompt, think_text, response_text, num_turns: Int32, columns), in order;
        unused: (row, dataset_source, reason) of the rows that are no chat or have no answer, in order.
    """
    any_role = think_format == "any" and chat_format != "plain"
    fields = REASONING_FIELDS if think_format == "any" else ()
    answers = split_answers(_answers(rows, fields, any_role), think_format)
    has_answer = pl.col("answer") != ""
    if think_format == "any":
        has_answer |= pl.col("think_text") != ""
    if MISFIT_COLUMN not in rows.columns:
        answers = answers.with_columns(pl.lit(None, pl.String).alias(MISFIT_COLUMN))
    has_answer &= pl.col(MISFIT_COLUMN).is_null()
    reason = pl.col(MISFIT_COLUMN).fill_null("no_assistant")
    return (
        answers.filter(has_answer).select(
            "row",
            "dataset_source",
            *TEXT_COLUMNS,
            "num_turns",
            *(pl.col(name).fill_null("") for name in columns),
        ),
        answers.filter(~has_answer).select("row", "dataset_source", reason=reason),
    )


TEXT_COLUMNS = CHAT_TEXTS
VIEW_COLUMNS: dict[View, tuple[str, ...]] = {
    "combined": TEXT_COLUMNS,
    "think": ("think_text",),
    "response": ("response_text",),
}


def view_text(view: View) -> pl.Expr:
    """Expression for the text of a view over the columns of `extract`, named after the view."""
    return pl.concat_str(VIEW_COLUMNS[view], separator=SEPARATOR).str.strip_chars(PYTHON_WHITESPACE).alias(view)


def count_column(view: View) -> str:
    """Name of the column of extracted_data.parquet with a view's token counts, Int32, 0 for an empty text."""
    return "num_tokens" if view == "combined" else f"num_tokens_{view}"


def empty_column(view: View) -> str:
    """Name of the column that says whether a view's text is empty. Files have no such column for `combined`."""
    return f"empty_{view}"


def is_assistant(any_role: bool) -> pl.Expr:
    """Whether a message's role is who answers. any_role: by any name of ASSISTANT, in any case; else by exactly one."""
    if not any_role:
        return pl.col("role") == "assistant"
    return pl.col("role").str.strip_chars(PYTHON_WHITESPACE).str.to_lowercase().is_in(ASSISTANT)


def _answers(rows: pl.DataFrame, fields: Sequence[str], any_role: bool) -> pl.DataFrame:
    """Replace messages by user_prompt, answer (null for none), those of `fields` that messages have, and num_turns.

    Works on one flat list of the messages of all chats: `chat` maps each message to its chat, by position in `rows`.
    """
    # Flatten: one row per message, in order. Null and empty chats have none.
    lengths = rows["messages"].list.len().fill_null(0).cast(pl.Int64).to_numpy()
    messages = rows.select("messages").filter(pl.Series(lengths > 0)).explode("messages").unnest("messages")
    chat = np.repeat(np.arange(rows.height), lengths)
    is_answer = messages.select(is_assistant(any_role).fill_null(False)).to_series().to_numpy()

    # Per chat: the number of assistant messages, and the flat position of the last one, -1 without any.
    num_turns = np.bincount(chat[is_answer], minlength=rows.height)
    last = np.full(rows.height, -1)
    np.maximum.at(last, chat[is_answer], np.flatnonzero(is_answer))

    # The prompt: the contents of all messages before the answer, as one list per chat, then joined.
    in_prompt = np.arange(len(chat)) < last[chat]
    prompt_ends = np.bincount(chat[in_prompt], minlength=rows.height).cumsum()
    prompts = pa.LargeListArray.from_arrays(
        pl.Series(np.concatenate([np.zeros(1, np.int64), prompt_ends])).to_arrow(),  # pyarrow would import pandas
        messages["content"].filter(pl.Series(in_prompt)).fill_null("").to_arrow(),
    )
    user_prompt = pl.Series("user_prompt", prompts, dtype=pl.List(pl.String)).list.join(SEPARATOR)

    # The answer: the message at `last`. Chats without one gather any message, which `when` replaces by null.
    answer_index = pl.Series(np.where(last >= 0, last, 0)).cast(pl.UInt32)
    taken = ["content", *(name for name in fields if name in messages.columns)]
    answers = (messages if messages.height else messages.clear(1)).select(taken).select(pl.all().gather(answer_index))
    return (
        rows.drop("messages")
        .with_columns(
            user_prompt,
            *(pl.when(pl.Series(last >= 0)).then(answers[name]).alias(name) for name in taken),
            pl.Series("num_turns", num_turns, dtype=pl.Int32),
        )
        .rename({"content": "answer"})
    )
