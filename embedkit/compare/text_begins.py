"""How texts of rows begin, to show them."""

import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.prepare import view_texts

TEXT_CHARACTERS = 200


def text_begins(merged: Merged, texts: pl.DataFrame) -> list[str]:
    """How the view's text of each line begins."""
    own = f"view.{merged.view}"
    column = texts[own] if own in texts.columns else texts.select(view_texts(merged.config.request)[merged.view])
    series = column if isinstance(column, pl.Series) else column.to_series()
    return [" ".join((text or "")[: 2 * TEXT_CHARACTERS].split())[:TEXT_CHARACTERS] for text in series]
