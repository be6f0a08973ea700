"""Whole texts of rows, and the nearest rows of one, as they are sent."""

from threading import Event

import msgspec
import numpy as np

from embedkit.analysis import Merged
from embedkit.analysis.merged import all_text_names
from embedkit.analysis.similarity.lookup import vector_of
from embedkit.analysis.similarity.neighbors import Neighbors, top_k
from embedkit.errors import UsageError
from embedkit.view_server.run_views import RunViews

MAX_ROWS = 100
"""Rows whose texts one request may have."""
SNIPPET_CHARACTERS = 160


class RowTexts(msgspec.Struct, frozen=True, kw_only=True):
    """A row with all of its texts, by their names on the page, such as prompt. num_tokens: of the view's text."""

    id: int
    row: int
    dataset_source: str
    num_tokens: int
    num_turns: int
    texts: dict[str, str]


class NearRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that was found: its rank from 1, its cosine, and how its first text begins, if that was requested."""

    rank: int
    cosine: float
    id: int
    row: int
    dataset_source: str
    num_tokens: int
    num_turns: int
    snippet: str | None = None


def texts_of(views: RunViews, merged: Merged, ids: list[int]) -> tuple[RowTexts, ...]:
    """Rows with their whole texts, in the order given. Only the row groups with these rows are read.

    Raises:
        UsageError: there is no such id, or there are more than MAX_ROWS.
        EmbedkitError: a file is damaged or missing.
    """
    if not 1 <= len(ids) <= MAX_ROWS:
        raise UsageError(f"{len(ids)} ids: a request has 1 to {MAX_ROWS}")
    rows = merged.rows[[views.position(merged, row_id) for row_id in ids]]
    names = all_text_names(merged.config)
    texts = merged.texts(ids, merged.config.request.views)
    return tuple(
        RowTexts(
            **{name: line[name] for name in RowTexts.__struct_fields__ if name != "texts"},
            texts={name: written[column] or "" for column, name in names.items()},
        )
        for line, written in zip(rows.iter_rows(named=True), texts.iter_rows(named=True), strict=True)
    )


def near_rows_of(
    views: RunViews, merged: Merged, row_id: int, count: int, snippets: bool, stop: Event
) -> tuple[NearRow, ...]:
    """The rows nearest to a row, exactly, the row itself left out.

    Raises UsageError if there is no such row or it has no text in this view, and Stopped once `stop` is set.
    """
    vector = vector_of(merged, row_id)
    found = top_k(vector[None], views.blocks(merged, stop), count + 1)
    others = np.flatnonzero(found.ids[0] != row_id)[:count]
    return described(views, merged, Neighbors(found.ids[:, others], found.cosines[:, others]), snippets)


def described(views: RunViews, merged: Merged, found: Neighbors, snippets: bool) -> tuple[NearRow, ...]:
    """What is known about the rows that one query found, the nearest first."""
    ids = [int(row_id) for row_id in found.ids[0] if row_id >= 0]
    rows = merged.rows[[views.position(merged, row_id) for row_id in ids]]
    beginnings = _beginnings(merged, ids) if snippets and ids else [None] * len(ids)
    fields = ("id", "row", "dataset_source", "num_tokens", "num_turns")
    return tuple(
        NearRow(rank=rank, cosine=float(cosine), snippet=snippet, **{name: line[name] for name in fields})
        for rank, (cosine, snippet, line) in enumerate(
            zip(found.cosines[0][: len(ids)], beginnings, rows.iter_rows(named=True), strict=True), 1
        )
    )


def _beginnings(merged: Merged, ids: list[int]) -> list[str | None]:
    """How the first text of each row begins, on one line."""
    column = next(iter(merged.text_names))
    texts = merged.texts(ids)[column]
    return [" ".join((text or "")[: 4 * SNIPPET_CHARACTERS].split())[:SNIPPET_CHARACTERS] for text in texts]
