"""Where a row is dropped, and why. Every chosen row is either kept or recorded here; no text is truncated.

- no_assistant: the chat has no answer (extract.py finds these rows);
- not_a_chat: the messages are in none of the formats that are read (data/chat_values.py);
- not_text: a text column holds a list or an object;
- empty: no view of the row has a text with tokens;
- too_long: a view of the row has more tokens than max_length.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from embedkit.documents import FileRecord, Reason, View, atomic_write_hashed
from embedkit.prepare.extract import count_column

DROPPED_SCHEMA = {
    "row": pl.Int64(),
    "dataset_source": pl.String(),
    "reason": pl.String(),
    "token_count": pl.Int32(),
}
"""Columns of dropped_rows.parquet. `token_count` is that of the longest view, null without tokens."""


def split_kept(counted: pl.DataFrame, views: Sequence[View], max_length: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows with token counts into (kept, dropped); dropped has reason and token_count.

    A row is empty if all its views are. It is too long if one view is. Its token_count is that of its longest view.
    """
    longest = pl.max_horizontal(count_column(view) for view in views)
    dropped = counted.filter((longest == 0) | (longest > max_length)).select(
        "row",
        "dataset_source",
        pl.when(longest == 0).then(pl.lit("empty")).otherwise(pl.lit("too_long")).alias("reason"),
        pl.when(longest > 0).then(longest).alias("token_count"),
    )
    return counted.filter((longest > 0) & (longest <= max_length)), dropped


def gather_dropped(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Join frames of dropped rows into one with DROPPED_SCHEMA, in the order of the data set."""
    empty = pl.DataFrame(schema=DROPPED_SCHEMA)
    return pl.concat([empty, *frames], how="diagonal").select(*DROPPED_SCHEMA).sort("row")


def count_reasons(dropped: pl.DataFrame) -> dict[Reason, int]:
    """Number of rows dropped for each reason; 0 included, except for reasons that earlier versions did not have."""
    return with_all_reasons(dict(dropped.group_by("reason").len().sort("reason").iter_rows()))


def with_all_reasons(counts: Mapping[Reason, int]) -> dict[Reason, int]:
    """Counts by reason with those that every version had, 0 if no row was dropped for it."""
    reasons: tuple[Reason, ...] = ("no_assistant", "empty", "too_long")
    return {reason: counts.get(reason, 0) for reason in reasons} | dict(counts)


def write_dropped(path: Path, lost: pl.DataFrame) -> FileRecord:
    """Write a table of dropped rows durably. Returns its record."""
    data = io.BytesIO()
    lost.write_parquet(data)
    with atomic_write_hashed(path) as file:
        file.write(data.getbuffer())
    return file.record
