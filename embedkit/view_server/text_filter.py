"""Rows whose whole texts match a filter, read batch by batch from the tables, with a limit on the time."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl

from embedkit.analysis import Merged
from embedkit.analysis.texts.batches import whole_texts
from embedkit.errors import UsageError
from embedkit.view_server.word_patterns import pattern_of


@dataclass(frozen=True)
class Filter:
    """What texts must have. have, lack: regular expressions that a text of the row matches, and that none does."""

    have: tuple[str, ...] = ()
    lack: tuple[str, ...] = ()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Some rows were read: the ids of those that match, and the id before which all rows have been read.

    is_done: whether all rows have been read. If the last one says no, the time was over.
    """

    ids: list[int]
    next: int
    is_done: bool


def make_filter(have: Sequence[str], lack: Sequence[str], pattern: str | None) -> Filter:
    """A filter of words and phrases, or of one regular expression.

    Raises UsageError if there is none, or the expression is none of the Rust crate `regex`.
    """
    if pattern is not None:
        try:
            pl.Series([""]).str.contains(pattern)
        except pl.exceptions.PolarsError as error:
            reason = str(error).split("\n\nThis error", 1)[0].strip()
            raise UsageError(f"{pattern}: this is no regular expression of the Rust crate regex: {reason}") from None
        return Filter(have=(pattern,))
    terms = [[term.strip() for term in terms if term.strip()] for terms in (have, lack)]
    if not any(terms):
        raise UsageError("the filter is empty; type words, or a regular expression")
    return Filter(*(tuple(pattern_of(term) for term in some) for some in terms))


def matching_rows(merged: Merged, wanted: Filter, first: int, seconds: float) -> Generator[Progress]:
    """Read the rows from the id `first` on, and yield what was found after each batch.

    seconds: after them, the last Progress says where to go on. Raises EmbedkitError naming a damaged file.
    """
    end = time.monotonic() + seconds
    start = int(np.searchsorted(merged.ids, first))
    chosen = merged.at(slice(start, None))
    total = len(chosen.ids)
    matches = _matches(wanted)
    for positions, frame in whole_texts(chosen) if total else ():
        done = int(positions[-1]) + 1
        found = chosen.ids[positions][frame.select(matches).to_series().to_numpy()]
        is_late = time.monotonic() > end
        yield Progress(ids=found.tolist(), next=int(chosen.ids[done - 1]) + 1, is_done=done == total)
        if is_late:
            return
    if not total:
        yield Progress(ids=[], next=first, is_done=True)


def _matches(wanted: Filter) -> pl.Expr:
    def in_any(pattern: str) -> pl.Expr:
        return pl.any_horizontal(pl.all().str.contains(pattern))

    return pl.all_horizontal(
        pl.lit(value=True),
        *(in_any(pattern) for pattern in wanted.have),
        *(~in_any(pattern) for pattern in wanted.lack),
    )
