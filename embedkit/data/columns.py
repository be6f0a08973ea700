"""Which columns of the files are read, and as what. A name may be a path: `meta.source` is a field of `meta`."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from embedkit.documents import ChatFormat, Request, template_columns

MESSAGES_COLUMN, SOURCE_COLUMN = "messages", "source"
"""Names of the columns that readers yield, whatever the file calls them.

A file's names are any text. In an expression of polars, some would mean different columns: `*`, `^row$`, `row`.
"""
MISFIT_COLUMN = "misfit"
"""Why a row cannot be used, null if it can: a value that is no chat or no text."""
LEFT_OUT_COLUMN = "left_out"
"""What a row's messages have that is no text: a kind per part, such as image."""


def text_column(name: str) -> str:
    """The name under which a text column is kept. Its own name may be that of a column of a run."""
    return f"column.{name}"


@dataclass(frozen=True)
class Columns:
    """The columns to read, by their names in the files.

    messages: the chats, or None if they are not read. source: the source, or None. texts: columns of text.
    chat_format: how messages are written.
    reasoning: whether reasoning and calls of tools are read, too: what `--think-format any` needs.
    """

    messages: str | None = "messages"
    source: str | None = "dataset_source"
    texts: tuple[str, ...] = ()
    chat_format: ChatFormat = "plain"
    reasoning: bool = False

    def named(self) -> list[tuple[str, str]]:
        """(option, name) of every column, as a message names them."""
        named = [("--messages-column", self.messages), ("--source-column", self.source)]
        return [(option, name) for option, name in named if name is not None] + [
            ("--text-column or a view", name) for name in self.texts
        ]

    def without(self, names: Collection[str]) -> "Columns":
        """Only what is in the files, if columns of these names come from elsewhere."""
        return replace(
            self,
            source=None if self.source in names else self.source,
            texts=tuple(name for name in self.texts if name not in names),
        )

    def source_only(self) -> "Columns":
        """The source alone."""
        return replace(self, messages=None, texts=())


def find_path(names: Collection[str], column: str) -> list[str] | None:
    """The path of a column: its name, or that of a column before a dot and names of fields; None if there is none.

    names: of the file's columns. A column whose own name has dots comes first, then the longest.
    """
    for end in (len(column), *(i for i in range(len(column) - 1, 0, -1) if column[i] == ".")):
        if column[:end] in names:
            return [column[:end], *(column[end + 1 :].split(".") if end < len(column) else [])]
    return None


CHAT_TEXTS = ("user_prompt", "think_text", "response_text")
"""Names that templates of views have for the texts of a chat, not for columns."""


def columns_of_templates(templates: Iterable[str], *, is_plain: bool) -> tuple[str, ...]:
    """The columns of the data set that templates name, each once. is_plain: there are no chats."""
    own = () if is_plain else CHAT_TEXTS
    names = dict.fromkeys(name for template in templates for name in template_columns(template))
    return tuple(name for name in names if name not in own)


def columns_of(request: Request) -> Columns:
    """The columns that a run reads."""
    of_views = columns_of_templates(request.templates.values(), is_plain=bool(request.text_columns))
    return Columns(
        messages=None if request.text_columns else request.messages_column,
        source=request.source_column,
        texts=tuple(dict.fromkeys((*request.text_columns, *of_views))),
        chat_format=request.chat_format,
        reasoning=request.think_format == "any",
    )
