"""Texts of a view for some rows, cut, in batches, so that no more than a batch of whole texts is in memory."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged, view_column
from embedkit.documents import VIEWS
from embedkit.prepare import view_texts

BATCH_ROWS = 1024
"""Rows whose whole texts are in memory at once."""


def cut_texts(
    merged: Merged,
    ids: npt.NDArray[np.int64],
    characters: int,
    progress: Callable[[int], None] = lambda rows: None,
) -> pl.Series:
    """The first `characters` of the view's text of some ids, ascending, in their order."""
    view = merged.view
    text = view_texts(merged.config.request)[view] if view in VIEWS else pl.col(view_column(view))
    found = [pl.Series("text", [], pl.String)]
    for start in range(0, len(ids), BATCH_ROWS):
        batch = ids[start : start + BATCH_ROWS]
        texts = merged.texts(batch.tolist()).select(text.fill_null("").str.slice(0, characters).alias("text"))
        found.append(texts["text"].rechunk())
        progress(len(batch))
    return pl.concat(found)
