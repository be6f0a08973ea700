"""Decodes one row of JSON: the columns that are read, chats among them.

A row whose chat is plain is decoded into structs, which is fast. Any other chat is decoded into Python values and read
by chat_values.py. What is not read is checked only for where it ends.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from embedkit.data.chat_values import Chat, ChatRules, NotAChatError, read_chat
from embedkit.data.columns import Columns, find_path
from embedkit.data.reasoning import REASONING_FIELDS
from embedkit.data.roles import chat_role
from embedkit.documents import UNREADABLE, Reason

_Text = str | UnsetType | None


class _Message(msgspec.Struct, rename={"from_": "from"}):
    """A message that needs no more than renaming."""

    role: _Text = UNSET
    content: _Text = UNSET
    from_: _Text = UNSET
    value: _Text = UNSET
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    tool_calls: None = None
    function_call: None = None
    function_calls: None = None


ROW = msgspec.json.Decoder(dict[str, msgspec.Raw])
"""A row as its keys and their undecoded values. A struct would do it at once, but takes not every text as a key."""
CHAT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[_Message | None] | None)
NULL = msgspec.Raw(b"null")
NO_CHAT = Chat(None, [])


class Row(NamedTuple):
    """The columns of a row. texts: in the order of Columns.texts. misfit: why it cannot be used, if so."""

    chat: Chat
    source: str | None
    texts: list[str | None]
    misfit: Reason | None


def decode_row(data: bytes, columns: Columns) -> Row:
    """Decode a row.

    JSON knows no NaN and no half of a surrogate pair, but both may be in what is not read.

    Raises ValueError or RecursionError if the row is no JSON object, the source is a list or an object, or a text that
    is read is not Unicode.
    """
    fields = row_fields(data)
    chat = NO_CHAT
    misfit: Reason | None = None
    if columns.messages is not None:
        try:
            chat = _chat(_value(fields, columns.messages), ChatRules(columns.chat_format, columns.reasoning))
        except NotAChatError:
            misfit = "not_a_chat"
    try:
        texts = [plain_text(_value(fields, name)) for name in columns.texts]
    except TypeError:
        texts, misfit = [None] * len(columns.texts), misfit or "not_text"
    return Row(chat, _source(fields, columns.source), texts, misfit)


def row_fields(data: bytes) -> Mapping[str, Any]:
    """A row's keys and values, undecoded if msgspec can read it, else as Python reads it. Raises as decode_row."""
    try:
        return ROW.decode(data)
    except UNREADABLE as error:
        try:
            fields = json.loads(data.removeprefix(BOM_UTF8).decode())  # files with marks may have been joined
        except (ValueError, RecursionError):
            raise error from None  # it names a place
        if not isinstance(fields, dict):
            raise
        return fields


def field_value(fields: Mapping[str, Any], column: str) -> Any:
    """A column's value in a row, as plain Python; None if the row lacks it."""
    return _decoded(_value(fields, column))


def _value(fields: Mapping[str, Any], column: str) -> Any:
    """A column's value, undecoded if it can be; null if the row lacks it."""
    path = [column] if column in fields else find_path(fields, column)
    if path is None:
        return NULL
    value = fields[path[0]]
    for name in path[1:]:
        inside = _decoded(value)
        value = inside.get(name) if isinstance(inside, dict) else None
    return value


def _decoded(value: Any) -> Any:
    return json.loads(bytes(value).decode()) if isinstance(value, msgspec.Raw) else value


def _chat(value: Any, rules: ChatRules) -> Chat:
    """Read a chat. Raises NotAChatError for what is none, and ValueError as decode_row."""
    if isinstance(value, msgspec.Raw):
        try:
            return _plain_chat(CHAT.decode(value), rules)
        except (*UNREADABLE, NotAChatError):
            value = _decoded(value)
    if isinstance(value, str):
        return chat_of_json(value, rules)
    chat = read_chat(value, rules)
    for message in chat.messages or ():
        for text in (message or {}).values():
            require_unicode(text)
    return chat


def chat_of_json(text: str | None, rules: ChatRules) -> Chat:
    """A chat from its JSON. Raises NotAChatError for what is none."""
    if text is None or not text.strip():
        return NO_CHAT
    try:
        return _chat(msgspec.Raw(text.encode()), rules)
    except (ValueError, RecursionError):
        raise NotAChatError("text that is no JSON") from None


def _plain_chat(messages: list[_Message | None] | None, rules: ChatRules) -> Chat:
    """A chat of plain messages. Raises NotAChatError if one needs more than renaming."""
    if messages is None:
        return NO_CHAT
    has_openai, has_sharegpt = rules.chat_format != "sharegpt", rules.chat_format in ("sharegpt", "auto")
    read: list[dict[str, str | None] | None] = []
    for message in messages:
        if message is None:
            read.append(None)
            continue
        role = content = None
        if has_openai:
            role, content = message.role or None, message.content
        if has_sharegpt:
            role = role or chat_role(message.from_ or None)
            content = message.value if content is None or content is UNSET else content
        if not role:
            raise NotAChatError("a message that may need more")
        fields: dict[str, str | None] = {"role": role, "content": None if content is UNSET else content}
        if rules.reasoning:
            fields |= {name: getattr(message, name) for name in REASONING_FIELDS}
        read.append(fields)
    return Chat(read, [])


def plain_text(value: Any) -> str | None:
    """A text, or a number or a flag as text. Raises TypeError for a list or an object."""
    value = _decoded(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float | None):
        raise TypeError
    text = None if value is None else str(value)
    require_unicode(text)
    return text


def _source(fields: Mapping[str, Any], column: str | None) -> str | None:
    try:
        return None if column is None else plain_text(_value(fields, column))
    except TypeError:
        raise ValueError(f"the source, column {column!r}, is a list or an object") from None


def require_unicode(text: str | None) -> None:
    """Raise ValueError if a text has half of a surrogate pair, which no UTF-8 file can hold."""
    if text is not None and not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("text with half of a surrogate pair, which is not Unicode")
