"""How long the texts of a run's views are, by the sizes of the columns that they are made of."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from embedkit.data import CHAT_TEXTS
from embedkit.documents import VIEWS, Request, parse_template, template_columns

CHATS = "{chats}"
"""Stands for the column with the chats. No column that a template names has braces."""

Floats = npt.NDArray[np.float64]


def text_bytes(request: Request, columns: Mapping[str, Floats]) -> Floats:
    """Mean bytes of each text that a row has, float64 (n, texts), at most.

    think and response count as one text: they are pieces of combined, together at most as long.

    Args:
        request: the run's request.
        columns: mean bytes per row of the columns with text, float64 (n,); CHATS is that of the chats.
    """
    texts = [_built_in(request, columns)] * (("combined" in request.views) + _has_think_or_response(request))
    own = [request.templates[view] for view in request.views if view not in VIEWS]
    return np.stack([*texts, *(_rendered(template, request, columns) for template in own)], axis=1)


def has_pieces(request: Request) -> bool:
    """Whether a view is made of a part of the chat, whose length is known only to be at most that of the chat."""
    own = [] if request.text_columns else [request.templates[view] for view in request.views if view not in VIEWS]
    named = [set(template_columns(template)) & set(CHAT_TEXTS) for template in own]
    return _has_think_or_response(request) or any(0 < len(names) < len(CHAT_TEXTS) for names in named)


def _has_think_or_response(request: Request) -> bool:
    return any(view in request.views for view in VIEWS if view != "combined")


def _built_in(request: Request, columns: Mapping[str, Floats]) -> Floats:
    """The text of combined."""
    if not request.text_columns:
        return columns[CHATS]
    if "combined" in request.templates:
        return _rendered(request.templates["combined"], request, columns)
    texts: Floats = np.sum([columns[name] for name in request.text_columns], axis=0)
    return texts + 2 * (len(request.text_columns) - 1)


def _rendered(template: str, request: Request, columns: Mapping[str, Floats]) -> Floats:
    """The text of a template. The texts of a chat count once, together."""
    pieces = parse_template(template)
    own = () if request.text_columns else CHAT_TEXTS
    names = [piece.text for piece in pieces if piece.is_column]
    sizes = [columns[name] for name in names if name not in own]
    if any(name in own for name in names):
        sizes.append(columns[CHATS])
    fixed = sum(len(piece.text.encode()) for piece in pieces if not piece.is_column)
    texts: Floats = np.sum(sizes, axis=0)
    return texts + fixed
