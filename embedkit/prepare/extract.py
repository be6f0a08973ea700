"""From a chat to its texts: prompt, think, response, and the combined text that is embedded.

The rules, held to the letter (tests/support/reference.py is the plain form of them):
- The answer is the last message whose role is assistant. If there is none, or its content is null or "",
  the row is dropped as no_assistant.
- user_prompt: the contents of all messages before it, joined by a blank line. A null content is "".
- num_turns: the number of assistant messages in the row.
- If the answer holds both <think> and </think>: think_text is what stands between the first of each,
  stripped (empty if they stand the wrong way round); response_text is what follows the first </think>,
  stripped. Otherwise think_text is empty and response_text is the whole answer.
The text of a view, of which an empty one has no vector:
- combined: prompt, think and response joined by a blank line each, stripped.
- think, response: that text alone, stripped.
"""

import numpy as np
import polars as pl
import pyarrow as pa

from embedkit.documents.schema import View

PYTHON_WHITESPACE = "".join(chr(c) for c in range(0x3001) if chr(c).isspace())
"""What str.strip() takes away. Polars' own strip leaves \\x1c to \\x1f, so the set is given."""

SEPARATOR = "\n\n"


def extract(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split chats into texts.

    Args:
        rows: (row, messages: list of struct{role, content}, dataset_source).

    Returns:
        texts: (row, dataset_source, user_prompt, think_text, response_text, num_turns: Int32), in order;
        no_assistant: (row, dataset_source) of the rows without an answer, in order.
    """
    answers = _answers(rows)
    has_answer = pl.col("answer").fill_null("") != ""
    texts = answers.filter(has_answer).with_columns(_split_answer()).drop("answer")
    return (
        texts.select("row", "dataset_source", "user_prompt", "think_text", "response_text", "num_turns"),
        answers.filter(~has_answer).select("row", "dataset_source"),
    )


TEXT_COLUMNS = ("user_prompt", "think_text", "response_text")
VIEW_COLUMNS: dict[View, tuple[str, ...]] = {
    "combined": TEXT_COLUMNS,
    "think": ("think_text",),
    "response": ("response_text",),
}


def view_text(view: View) -> pl.Expr:
    """The text of a view, from the columns that `extract` makes; the expression is named after the view."""
    return pl.concat_str(VIEW_COLUMNS[view], separator=SEPARATOR).str.strip_chars(PYTHON_WHITESPACE).alias(view)


def count_column(view: View) -> str:
    """The column of extracted_data.parquet with a view's token counts, Int32, 0 for an empty text."""
    return "num_tokens" if view == "combined" else f"num_tokens_{view}"


def empty_column(view: View) -> str:
    """The column that says whether a view's text is empty. `combined` has none: a row is kept if any text is."""
    return f"empty_{view}"


def _answers(rows: pl.DataFrame) -> pl.DataFrame:
    """Add user_prompt, answer (null: none) and num_turns; drop messages."""
    lengths = rows["messages"].list.len().fill_null(0).cast(pl.Int64).to_numpy()
    messages = rows.select("messages").filter(pl.Series(lengths > 0)).explode("messages").unnest("messages")
    chat = np.repeat(np.arange(rows.height), lengths)
    is_assistant = (messages["role"] == "assistant").fill_null(False).to_numpy()

    num_turns = np.bincount(chat[is_assistant], minlength=rows.height)
    last = np.full(rows.height, -1)
    np.maximum.at(last, chat[is_assistant], np.flatnonzero(is_assistant))

    in_prompt = np.arange(len(chat)) < last[chat]
    prompt_ends = np.bincount(chat[in_prompt], minlength=rows.height).cumsum()
    prompts = pa.LargeListArray.from_arrays(
        np.concatenate([np.zeros(1, np.int64), prompt_ends]),
        messages["content"].filter(pl.Series(in_prompt)).fill_null("").to_arrow(),
    )
    user_prompt = pl.Series("user_prompt", prompts, dtype=pl.List(pl.String)).list.join(SEPARATOR)
    answer_index = pl.Series(np.where(last >= 0, last, 0)).cast(pl.UInt32)
    contents = messages["content"] if messages.height else pl.Series("content", [None], dtype=pl.String)
    return rows.drop("messages").with_columns(
        user_prompt,
        pl.when(pl.Series(last >= 0)).then(contents.gather(answer_index)).alias("answer"),
        pl.Series("num_turns", num_turns, dtype=pl.Int32),
    )


def _split_answer() -> list[pl.Expr]:
    """think_text and response_text from `answer`."""
    at_close = pl.col("answer").str.splitn("</think>", 2)
    before, after = at_close.struct.field("field_0"), at_close.struct.field("field_1")
    has_tags = pl.col("answer").str.contains("<think>", literal=True) & after.is_not_null()
    # The first <think> stands before the first </think>, or the tags are the wrong way round.
    think = before.str.splitn("<think>", 2).struct.field("field_1").fill_null("")
    return [
        pl.when(has_tags).then(think.str.strip_chars(PYTHON_WHITESPACE)).otherwise(pl.lit("")).alias("think_text"),
        pl.when(has_tags)
        .then(after.str.strip_chars(PYTHON_WHITESPACE))
        .otherwise(pl.col("answer"))
        .alias("response_text"),
    ]
