"""How texts of rows begin, to show them."""

from unicodedata import east_asian_width

import polars as pl

from embedkit.analysis.components.extremes import printable
from embedkit.analysis.merged import Merged
from embedkit.prepare import view_texts

TEXT_CHARACTERS = 200


def text_begins(merged: Merged, texts: pl.DataFrame) -> list[str]:
    """How the view's text of each line begins."""
    own = f"view.{merged.view}"
    column = texts[own] if own in texts.columns else texts.select(view_texts(merged.config.request)[merged.view])
    series = column if isinstance(column, pl.Series) else column.to_series()
    return [" ".join((text or "")[: 2 * TEXT_CHARACTERS].split())[:TEXT_CHARACTERS] for text in series]


def shown(text: str, columns: int) -> str:
    """The begin of a text on one line of a terminal, at most `columns` wide. A text that was cut ends in "..."."""
    line = " ".join(printable(text).split())
    widths = [2 if east_asian_width(character) in "WF" else 1 for character in line]
    if sum(widths) <= columns:
        return line
    kept = columns - 4
    for at, width in enumerate(widths):
        kept -= width
        if kept < 0:
            return f"{line[:at].rstrip()} ..."
    raise AssertionError("a line that is too wide has a character at which it is")
