"""The texts of a run's views: the built-in ones, those that a user defined by templates, and plain text.

In a run of chats, a template names the texts of the chat (user_prompt, think_text, response_text) or columns of the
file. A column that has the name of one of these three cannot be named. A null is "". The result is stripped.

In a run of plain text there is no chat, so every name is that of a column. Its texts are kept like those of a chat
whose prompt is the text of `combined`: what the template `combined` gives, else the text columns in their order,
joined by a blank line, without those that are only white space. think_text and response_text are empty.
"""

import unicodedata
from collections.abc import Collection, Mapping, Sequence

import polars as pl

from embedkit.data import MISFIT_COLUMN, columns_of_templates, text_column
from embedkit.documents import VIEWS, Request, View, is_view_name, parse_template, template_columns
from embedkit.errors import UsageError
from embedkit.prepare.extract import TEXT_COLUMNS, extract, view_text
from embedkit.prepare.think_tags import PYTHON_WHITESPACE, SEPARATOR

RESERVED = ("id", "row", "dataset_source", "num_tokens", "num_turns", *TEXT_COLUMNS)
"""Names of a run's own columns, which no view may have."""
NOT_PLAIN = ("think", "response")
"""Views that only chats have."""


def check_views(views: Sequence[str], templates: Mapping[str, str], text_columns: Sequence[str]) -> None:
    """Raise UsageError if a run cannot have these views.

    Args:
        views: their names.
        templates: by name, those of the user.
        text_columns: the columns of plain text; empty for chats.
    """
    for view in views:
        if view not in VIEWS and view not in templates:
            raise UsageError(f"--view {view}: there are {', '.join(VIEWS)}; write one of your own as {view}=TEMPLATE")
        if text_columns and view in NOT_PLAIN:
            raise UsageError(f"--view {view}: plain text has none (--text-column); only chats have")
    for view, template in templates.items():
        _check_template(view, template, is_plain=bool(text_columns))


def _check_template(view: str, template: str, *, is_plain: bool) -> None:
    if view in VIEWS and not (is_plain and view == "combined"):
        raise UsageError(
            f"--view {view}={template}: {view} has a fixed meaning; choose another name"
            + ("" if is_plain or view != "combined" else " (with --text-column, it may have a template)")
        )
    if not is_view_name(view) or view in RESERVED or view.startswith("by_source"):
        raise UsageError(
            f"--view {view}=...: {view!r} cannot be the name of a view. A name has a small letter, then small letters, "
            "digits or _, 40 characters at most; it is none of a run's columns, and does not begin with by_source"
        )
    if any(unicodedata.category(char) == "Cs" for char in template):
        raise UsageError(f"--view {view}={template!a}: not UTF-8, which texts are")
    try:
        columns = template_columns(template)
    except ValueError as error:
        raise UsageError(f"--view {view}={template}: {error}") from None
    if not columns:
        raise UsageError(f"--view {view}={template}: it names no column, so all rows would have the same text")


def view_texts(request: Request) -> dict[View, pl.Expr]:
    """By view, the expression for its text over the stored columns, named after the view."""
    return {view: _view_text(request, view).alias(view) for view in request.views}


def _view_text(request: Request, view: View) -> pl.Expr:
    if view in VIEWS:
        return view_text(view)
    return _rendered(request.templates[view], () if request.text_columns else TEXT_COLUMNS)


def _rendered(template: str, own: Collection[str]) -> pl.Expr:
    """The text that a template gives, stripped. own: names that mean columns of the run, not of the file."""
    pieces = [
        (
            pl.col(piece.text if piece.text in own else text_column(piece.text))
            if piece.is_column
            else pl.lit(piece.text)
        )
        for piece in parse_template(template)
    ]
    return pl.concat_str(pieces).str.strip_chars(PYTHON_WHITESPACE)


def own_columns(request: Request) -> tuple[str, ...]:
    """The columns of the data set that a run stores in addition, by their stored names: those of templates.

    The columns of the template `combined` are left out: its text is stored as the prompt.
    """
    templates = [request.templates[view] for view in request.views if view not in VIEWS]
    return tuple(map(text_column, columns_of_templates(templates, is_plain=bool(request.text_columns))))


def stored_texts(request: Request) -> tuple[str, ...]:
    """All columns of a run that hold texts."""
    return (*TEXT_COLUMNS, *own_columns(request))


def extract_texts(rows: pl.DataFrame, request: Request) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The texts of rows as `read_rows` gives them, and the rows that cannot be used: see `extract`."""
    if request.text_columns:
        return _extract_plain(rows, request)
    return extract(rows, request.think_format, request.chat_format, own_columns(request))


def _extract_plain(rows: pl.DataFrame, request: Request) -> tuple[pl.DataFrame, pl.DataFrame]:
    """As `extract`, for plain text: (row, dataset_source, misfit, and a column of text for each name) in `rows`."""
    template = request.templates.get("combined")
    text = _joined(request.text_columns) if template is None else _rendered(template, ())
    names = [name for name in rows.columns if name.startswith(text_column(""))]
    texts = rows.with_columns(pl.col(name).fill_null("") for name in names)
    is_fit = pl.col(MISFIT_COLUMN).is_null()
    return (
        texts.filter(is_fit).select(
            "row",
            "dataset_source",
            text.alias("user_prompt"),
            pl.lit("").alias("think_text"),
            pl.lit("").alias("response_text"),
            pl.lit(0, pl.Int32).alias("num_turns"),
            *own_columns(request),
        ),
        rows.filter(~is_fit).select("row", "dataset_source", reason=MISFIT_COLUMN),
    )


def _joined(names: Sequence[str]) -> pl.Expr:
    """Columns joined by a blank line, without those that are only white space."""
    columns = [pl.col(text_column(name)) for name in names]
    has_text = [column.str.strip_chars(PYTHON_WHITESPACE) != "" for column in columns]
    filled = [pl.when(is_there).then(column) for column, is_there in zip(columns, has_text, strict=True)]
    return pl.concat_str(filled, separator=SEPARATOR, ignore_nulls=True)
