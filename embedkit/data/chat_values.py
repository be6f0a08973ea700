"""Turns one chat, as plain Python values, into messages with text. docs/formats.md describes what is read.

Every reader uses this for what its own fast way does not cover, so a chat means the same in every file format.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from embedkit.data.reasoning import BLANK_LINE, REASONING_FIELDS
from embedkit.data.roles import chat_role
from embedkit.documents import ChatFormat

OPENAI, SHAREGPT = ("role", "content"), ("from", "value")
KEYS: dict[ChatFormat, tuple[tuple[str, str], ...]] = {
    "plain": (OPENAI,),
    "openai": (OPENAI,),
    "sharegpt": (SHAREGPT,),
    "auto": (OPENAI, SHAREGPT),
}
"""The keys of a message's role and content in each format of chats. In a mixed data set, each message has its own."""
TEXT_TYPES = {None, "text", "input_text", "output_text"}
TEXT_KEYS = ("text", "value", "content")
TOOL_CALL_FIELDS = ("tool_calls", "function_call", "function_calls")
"""OpenAI's field, the one before it, and the one of the Olmo data sets."""


class NotAChatError(ValueError):
    """A value that is no chat in the formats that are read."""


class ChatRules(NamedTuple):
    """How chats are read; see Columns."""

    chat_format: ChatFormat
    reasoning: bool

    @property
    def tool_calls(self) -> bool:
        """Whether calls of tools are part of a message's content."""
        return self.reasoning and self.chat_format != "plain"


class Chat(NamedTuple):
    """A chat's messages, with the keys of `message_fields`; and the kinds of its parts that are no text."""

    messages: list[dict[str, str | None] | None] | None
    left_out: list[str]


def message_fields(reasoning: bool) -> tuple[str, ...]:
    """The fields of a message after reading."""
    return ("role", "content", *(REASONING_FIELDS if reasoning else ()))


def read_chat(value: Any, rules: ChatRules) -> Chat:
    """Read a chat: a list of messages, its JSON, or lists of roles and contents. None has no messages.

    Raises NotAChatError if a message has no role or content, or values that hold no text.
    """
    messages = message_list(value)
    if messages is None:
        return Chat(None, [])
    left_out: list[str] = []
    return Chat([None if m is None else _message(m, rules, left_out) for m in messages], left_out)


def message_list(value: Any) -> list[Any] | None:
    """The messages of a chat, not read yet. Raises NotAChatError if it is no list of messages in any form."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping):
        value = _as_messages(value)
    if not isinstance(value, list | None):
        raise NotAChatError(f"{type(value).__name__} instead of a list of messages")
    return value


def _parsed(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise NotAChatError("text that is no JSON") from None


def _as_messages(lists: Mapping[str, Any]) -> list[Any]:
    """Messages from a list per field, as `datasets` stores a Sequence of structs."""
    columns = {key: values for key, values in lists.items() if isinstance(values, list)}
    if not columns or len({len(values) for values in columns.values()}) > 1:
        raise NotAChatError("an object instead of a list of messages")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _message(message: Any, rules: ChatRules, left_out: list[str]) -> dict[str, str | None]:
    if not isinstance(message, Mapping):
        raise NotAChatError(f"{type(message).__name__} instead of a message")
    if rules.chat_format != "plain":
        _require_keys(message, KEYS[rules.chat_format])
    role = _first_value(message, rules, 0)
    if not isinstance(role, str | None):
        raise NotAChatError(f"a role that is {type(role).__name__}")
    thoughts: list[str] = []
    pieces = [_text(_first_value(message, rules, 1), left_out, thoughts)]
    if rules.tool_calls:
        pieces += [_tool_calls(message.get(field)) for field in TOOL_CALL_FIELDS]
    is_openai = rules.chat_format != "sharegpt" and message.get("role") is not None
    read = {"role": role if is_openai else chat_role(role), "content": _joined(pieces)}
    if rules.reasoning:
        read |= {field: _reasoning(message.get(field)) for field in REASONING_FIELDS}
        read["thinking"] = _joined([read["thinking"], *thoughts])
    return read


def _require_keys(message: Mapping[str, Any], known: tuple[tuple[str, str], ...]) -> None:
    """Raise NotAChatError if a message has no key of a role or of a content."""
    if not any(key in message for keys in known for key in keys):
        raise NotAChatError(f"a message with the keys {', '.join(sorted(map(str, message))) or 'none'}")


def _first_value(message: Mapping[str, Any], rules: ChatRules, which: int) -> Any:
    """The role (0) or the content (1) of a message, under the first key that has a value.

    A table has all keys in all rows.
    """
    values = (message.get(keys[which]) for keys in KEYS[rules.chat_format])
    return next((value for value in values if value is not None), None)


def _joined(pieces: list[str | None]) -> str | None:
    """The pieces with text, joined by a blank line; a single one unchanged, None if there is none."""
    there = [piece for piece in pieces if piece]
    return BLANK_LINE.join(there) if there else next((piece for piece in pieces if piece is not None), None)


def _text(content: Any, left_out: list[str], thoughts: list[str]) -> str | None:
    """The text of a content. What its parts have of reasoning is added to `thoughts`, of no text to `left_out`."""
    if isinstance(content, str | None):
        return content
    if isinstance(content, Mapping):
        content = content["parts"] if isinstance(content.get("parts"), list) else [content]
    if not isinstance(content, list):
        raise NotAChatError(f"a content that is {type(content).__name__}")
    return _joined(["", *(_part_text(part, left_out, thoughts) for part in content)])


def _part_text(part: Any, left_out: list[str], thoughts: list[str]) -> str | None:
    """The text of a part, as OpenAI and Anthropic write it."""
    if isinstance(part, str | None):
        return part
    if not isinstance(part, Mapping):
        raise NotAChatError(f"a part of a content that is {type(part).__name__}")
    kind = part.get("type")
    if not isinstance(kind, str | None):
        raise NotAChatError("a part of a content with a type that is no text")
    if kind in TEXT_TYPES and (kind or any(key in part for key in TEXT_KEYS)):
        return _text_of_part(part)
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    if kind in ("thinking", "reasoning") and isinstance(thought := part.get("thinking") or part.get("text"), str):
        thoughts.append(thought)
        return None
    if kind == "tool_use":
        return tool_call_text(part.get("name"), _without_nulls(part.get("input")))
    if kind == "tool_result":
        return _text(part.get("content"), left_out, thoughts)
    if kind is None:
        raise NotAChatError(f"a part of a content with the keys {', '.join(sorted(map(str, part))) or 'none'}")
    left_out.append(kind.removeprefix("input_").removesuffix("_url"))
    return None


def _text_of_part(part: Mapping[str, Any]) -> str | None:
    """The text of a part of text. OpenAI's assistants put it into an object. Raises NotAChatError if it is not text."""
    text = next((part[key] for key in TEXT_KEYS if part.get(key) is not None), None)
    if isinstance(text, Mapping):
        text = text.get("value")
    if not isinstance(text, str | None):
        raise NotAChatError(f"a part of text that is {type(text).__name__}")
    return text


def _reasoning(value: Any) -> str | None:
    """The text of a reasoning field: a list's parts joined by a blank line, None for a flag or a number."""
    if isinstance(value, str | bool | int | float | None):
        return value if isinstance(value, str) else None
    if not isinstance(value, list):
        raise NotAChatError(f"a reasoning that is {type(value).__name__}")
    return _joined(["", *map(_reasoning_part, value)])


def _reasoning_part(part: Any) -> str | None:
    if isinstance(part, Mapping):
        texts: list[str | None] = [part[key] for key in ("text", "thinking") if key in part]
        if not texts or not all(isinstance(text, str | None) for text in texts):
            raise NotAChatError("a part of a reasoning without text or thinking")
        return next((text for text in texts if text), None)
    if not isinstance(part, str | None):
        raise NotAChatError(f"a part of a reasoning that is {type(part).__name__}")
    return part


def _tool_calls(value: Any) -> str | None:
    """The text of a message's calls of tools, also from their JSON. Text that is no JSON stays as it is.

    A table has all fields in all rows, so a call without any value is none.
    """
    if isinstance(value, str):
        if not _is_json(value):
            return value
        value = json.loads(value)
    calls = value if isinstance(value, list) else [value]
    return BLANK_LINE.join(_tool_call(call) for call in map(_without_nulls, calls) if call) or None


def _tool_call(call: Any) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    named = function if isinstance(function, Mapping) else call
    if isinstance(named, Mapping) and "name" in named:
        return tool_call_text(named["name"], named.get("arguments"))
    return call if isinstance(call, str) else _dumps(call)


def _without_nulls(value: Any) -> Any:
    """A value without the keys that have none; None for an object that is empty then."""
    if isinstance(value, Mapping):
        return {key: its for key, inside in value.items() if (its := _without_nulls(inside)) is not None} or None
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def tool_call_text(name: Any, arguments: Any) -> str:
    """A call of a tool as text, in the form of the chat templates of Hermes and Qwen.

    arguments: a value, or its JSON as text, as OpenAI writes it. JSON stays as it is written.
    """
    arguments = {} if arguments is None else arguments
    written = arguments if isinstance(arguments, str) and _is_json(arguments) else _dumps(arguments)
    return f'<tool_call>\n{{"name": {_dumps(name)}, "arguments": {written}}}\n</tool_call>'


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


_dumps: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, default=str).encode
