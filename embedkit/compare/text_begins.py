"""How texts of rows begin, to show them."""

from collections.abc import Sequence
from unicodedata import east_asian_width

import polars as pl

from embedkit.analysis.components.extremes import printable
from embedkit.analysis.findings.text import shared_begin
from embedkit.analysis.merged import Merged
from embedkit.prepare import view_texts

TEXT_CHARACTERS = 200
LONG = 400
"""Characters of texts that are compared with others, whose first characters may be the same."""
TEMPLATE = 40
"""Characters that texts begin with are left out if they are more than this."""
CONTEXT = 16


def text_begins(merged: Merged, texts: pl.DataFrame, characters: int = TEXT_CHARACTERS) -> list[str]:
    """How the view's text of each line begins: at most so many characters, on one line."""
    own = f"view.{merged.view}"
    column = texts[own] if own in texts.columns else texts.select(view_texts(merged.config.request)[merged.view])
    series = column if isinstance(column, pl.Series) else column.to_series()
    return [" ".join((text or "")[: 2 * characters].split())[:characters] for text in series]


def differing(texts: Sequence[str]) -> list[str]:
    """Texts without most of what all of them begin with, so that one sees where they differ."""
    begin = shared_begin(texts) if len(texts) > 1 else 0
    return [f"... {text[begin - CONTEXT :]}" if begin > TEMPLATE else text for text in texts]


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
