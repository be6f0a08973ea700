"""Splits answers into think text and response, by the rules of extract.py."""

from functools import reduce
from operator import and_

import polars as pl

from embedkit.data import REASONING_FIELDS
from embedkit.documents import ThinkFormat
from embedkit.prepare.think_tags import MARKERS, PYTHON_WHITESPACE, find_think, join_filled, strip


def split_answers(answers: pl.DataFrame, think_format: ThinkFormat) -> pl.DataFrame:
    """Add think_text and response_text, both String without null.

    answers: `answer`, String, null for none; for "any" also those of REASONING_FIELDS that the data have.
    """
    answers = answers.with_columns(pl.col("answer").fill_null(""))
    if think_format == "classic":
        return answers.with_columns(_classic())
    return _with_fields(_with_tags(answers.with_columns(_classic())))


_HAS_BOTH = pl.col("answer").str.contains("<think>", literal=True) & pl.col("answer").str.contains(
    "</think>", literal=True
)


def _classic() -> list[pl.Expr]:
    """Expressions for think_text and response_text, from `answer`."""
    at_close = pl.col("answer").str.splitn("</think>", 2)
    before, after = at_close.struct.field("field_0"), at_close.struct.field("field_1")
    # Looks for <think> only before the first </think>; null, so "", if the tags are in the wrong order.
    think = before.str.splitn("<think>", 2).struct.field("field_1").fill_null("")
    return [
        pl.when(_HAS_BOTH).then(think.str.strip_chars(PYTHON_WHITESPACE)).otherwise(pl.lit("")).alias("think_text"),
        pl.when(_HAS_BOTH)
        .then(after.str.strip_chars(PYTHON_WHITESPACE))
        .otherwise(pl.col("answer"))
        .alias("response_text"),
    ]


def _with_tags(answers: pl.DataFrame) -> pl.DataFrame:
    """Split the answers that have marks of a reasoning other than both <think> and </think>. Few data have any."""
    marked = pl.col("answer").str.contains_any(MARKERS, ascii_case_insensitive=True) & ~_HAS_BOTH
    places = answers.select(marked.arg_true()).to_series()
    found = find_think(answers["answer"].gather(places)) if len(places) else None
    if found is None:
        return answers
    is_split = found["think"].is_not_null()
    places, found = places.filter(is_split), found.filter(is_split)
    return answers.with_columns(
        answers["think_text"].scatter(places, found["think"]),
        answers["response_text"].scatter(places, found["response"]),
    )


def _with_fields(answers: pl.DataFrame) -> pl.DataFrame:
    """Put the texts of the reasoning fields before the think text. A text that is there twice counts once."""
    fields = [
        name for name in REASONING_FIELDS if name in answers.columns and answers[name].null_count() < len(answers)
    ]
    if not fields:
        return answers
    texts = [strip(name).fill_null("") for name in fields] + [pl.col("think_text")]
    distinct = [
        pl.when(reduce(and_, (text != earlier for earlier in texts[:i]), pl.lit(True))).then(text).otherwise(pl.lit(""))
        for i, text in enumerate(texts)
    ]
    return answers.with_columns(think_text=join_filled(*distinct))
