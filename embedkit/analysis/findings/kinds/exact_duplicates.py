"""Rows with exactly the same text in this view, within a source and across sources: one finding per text.

Strength: the number of rows with the text. Of equally many, a text of more sources comes first, then the longer one.
"""

import numpy as np
import polars as pl

from embedkit.analysis.findings.kind import Context, Finding, Found
from embedkit.analysis.merged import view_column
from embedkit.analysis.texts.facts import embedded_text
from embedkit.documents import VIEWS

NAMED_SOURCES = 3
"""Sources that a reason names."""


def find_exact_duplicates(context: Context) -> Found:
    """The texts that most rows have."""
    at = np.flatnonzero(context.merged.has_text)
    facts = context.evidence.facts
    rows = pl.DataFrame(
        {"position": at, "key": facts.text_key[at], "source": context.sources[at], "bytes": facts.text_bytes[at]}
    )
    groups = (
        rows.filter(pl.len().over("key") > 1)
        .group_by("key")
        .agg(
            members=pl.col("position").sort(),
            rows=pl.len(),
            sources=pl.col("source").n_unique(),
            bytes=pl.col("bytes").first(),
            first=pl.col("position").min(),
        )
        .sort("rows", "sources", "bytes", "first", descending=[True, True, True, False])
    )
    order = -np.arange(groups.height, dtype=np.float64)
    chosen = context.select(groups["first"].cast(pl.Int64).to_numpy(), order, collapse=False)
    listed: list[list[int]] = groups["members"][chosen].to_list()
    shown = [members[: 1 + context.options.compared] for members in listed]
    texts = _texts(context, sorted({position for members in shown for position in members}))
    findings = []
    for members, (first, *others) in zip(listed, shown, strict=True):
        same = tuple(position for position in others if texts[position] == texts[first])
        if same:  # always, unless two texts have the same key
            findings.append(Finding(first, float(len(members)), _reason(context, members), same))
    return Found(tuple(findings), groups.height)


def _texts(context: Context, positions: list[int]) -> dict[int, str]:
    """The texts of this view by position."""
    frame = context.texts(positions)
    view = context.merged.view
    text = embedded_text(context.merged) if view in VIEWS else pl.col(view_column(view))
    return dict(zip(positions, frame.select(text).to_series(), strict=True))


def _reason(context: Context, members: list[int]) -> str:
    codes, counts = np.unique(context.sources[members], return_counts=True)
    order = np.lexsort((codes, -counts))
    named = [f"{counts[i]:,} of {context.merged.sources[codes[i]]}" for i in order[:NAMED_SOURCES]]
    more = [f"{len(order) - NAMED_SOURCES} more sources"] if len(order) > NAMED_SOURCES else []
    return f"{len(members):,} rows have exactly this text: {', '.join(named + more)}"
