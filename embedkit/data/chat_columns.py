"""Finds the columns, or fields of columns, whose values look like chats."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedkit.data.chat_values import ChatRules, NotAChatError, read_chat


def looks_like_chat(value: Any) -> bool:
    """Whether a value is a chat with messages. A text counts only if it is the JSON of one."""
    if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
        return False
    try:
        return bool(read_chat(value, ChatRules("auto", reasoning=True)).messages)
    except NotAChatError:
        return False


def chat_columns(column: str, values: Sequence[Any]) -> list[str]:
    """The column if some of its values look like chats, else those of its fields whose values do."""
    if any(map(looks_like_chat, values)):
        return [column]
    fields: dict[str, None] = {}
    for value in values:
        if isinstance(value, Mapping):
            fields |= dict.fromkeys(f"{column}.{key}" for key, inside in value.items() if looks_like_chat(inside))
    return list(fields)
