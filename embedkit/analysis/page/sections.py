"""The parts that the page's tabs are made of: sections with text, figures and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Cell = str | Sequence[tuple[str, str]]
"""Text, or a list of (name, text) that is shown as one paragraph per entry."""

SKIPPED = "A beginning that the texts of a source share is left out, and shown as three dots."


@dataclass(frozen=True)
class Table:
    """A table of the page. Cells of columns named id or ids link to the map."""

    header: Sequence[str]
    lines: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Section:
    """A heading, sentences, figures with a caption each, and tables with a summary each.

    view: shown in the heading if the page has several views. tab: the title of the tab, if it is not that of the
    section. place: the id of an element after the sentences that a script fills, "" for none.
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[tuple[str, "Figure"]] = ()
    tables: Sequence[tuple[str, Table]] = ()
    view: str = ""
    tab: str = ""
    place: str = ""
