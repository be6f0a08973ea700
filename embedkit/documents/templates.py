"""Templates of the views that a user defines: text with the names of columns in braces, as `{title}: {body}`.

`{{` and `}}` are braces. Names may hold anything except braces. Nothing else of Python's format strings is known.
"""

from typing import NamedTuple


class Piece(NamedTuple):
    """A piece of a template: text as it is, or the name of a column whose text takes its place."""

    text: str
    is_column: bool


def parse_template(template: str) -> tuple[Piece, ...]:
    """The pieces of a template, in order. Raises ValueError saying what is wrong with it."""
    pieces: list[Piece] = []
    text, at = "", 0
    while at < len(template):
        char = template[at]
        if char not in "{}":
            text, at = text + char, at + 1
        elif template[at + 1 : at + 2] == char:
            text, at = text + char, at + 2
        else:
            name, at = _column(template, at)
            pieces += [Piece(text, False)] * bool(text) + [Piece(name, True)]
            text = ""
    return (*pieces, Piece(text, False)) if text else tuple(pieces)


def _column(template: str, at: int) -> tuple[str, int]:
    """The name in the braces that open at a place, and where they end."""
    if template[at] == "}":
        raise ValueError("it has a } without a {; write }} for a brace")
    end = template.find("}", at)
    name = template[at + 1 : end]
    if end < 0 or "{" in name:
        raise ValueError("it has a { without a }; write {{ for a brace")
    if not name:
        raise ValueError("it has {} without the name of a column")
    return name, end + 1


def template_columns(template: str) -> tuple[str, ...]:
    """The names of the columns in a template, each once, in order."""
    return tuple(dict.fromkeys(piece.text for piece in parse_template(template) if piece.is_column))
