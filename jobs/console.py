"""A console and texts of rich that show control characters as escapes. No other module makes a Console or a Text."""

from typing import Any

from rich.console import Console
from rich.text import Text

from embedkit.terminal import visible


class VisibleText(Text):
    """A text of rich without characters that a terminal would obey or hide."""

    def __init__(self, text: str = "", *arguments: Any, **settings: Any) -> None:
        super().__init__(visible(text), *arguments, **settings)


class VisibleConsole(Console):
    """A console that shows strings, also those in cells of a table, as they are: no markup, no emoji codes.

    Characters that a terminal would obey are escapes.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return the text that rich shows for a string."""
        return super().render_str(visible(text), **settings)
