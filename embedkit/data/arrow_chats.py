"""Turns columns of Arrow, of any type that can hold chats or texts, into the columns that readers yield.

Messages that need no more than renaming are taken column by column, which is fast. Others become Python values and are
read by chat_values.py.
"""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from embedkit.data.chat_values import KEYS, TOOL_CALL_FIELDS, Chat, ChatRules, NotAChatError, read_chat
from embedkit.data.columns import LEFT_OUT_COLUMN, MESSAGES_COLUMN, MISFIT_COLUMN, SOURCE_COLUMN, Columns, text_column
from embedkit.data.json_chats import chat_of_json
from embedkit.data.reasoning import PART_FIELDS, REASONING_FIELDS
from embedkit.data.roles import ASSISTANT
from embedkit.data.row_frame import frame_schema, messages_type

TEXT = pa.large_string()
TEXTS = {
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()),
    pa.null(),  # no row has a value
}


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds text, or bytes that should be text."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return kind in TEXTS


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of any kind."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def storage_type(kind: pa.DataType) -> pa.DataType:
    """The type without extensions and dictionaries around it."""
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def fits_text(kind: pa.DataType) -> bool:
    """Whether a column can be read as text: one of text, numbers, flags or times."""
    kind = storage_type(kind)
    return is_text(kind) or bool(pa.types.is_primitive(kind) or pa.types.is_decimal(kind))


def fits_chats(kind: pa.DataType, columns: Columns) -> bool:
    """Whether a column can hold chats: messages, a list per field of a message, or JSON of either."""
    kind = storage_type(kind)
    if is_text(kind):
        return True
    if is_list(kind) and pa.types.is_null(kind.value_type):  # no row has a message
        return True
    fields = message_types(kind)
    return any(name in fields for keys in KEYS[columns.chat_format] for name in keys)


def holds_reasoning(kind: pa.DataType) -> bool:
    """Whether a field is text, a list of texts, a list of parts with a text each, or a flag or a number."""
    kind = storage_type(kind)
    if is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return True
    if not is_list(kind):
        return False
    item = storage_type(kind.value_type)
    if pa.types.is_struct(item):
        texts = [part.type for part in item if part.name in PART_FIELDS]
        return bool(texts) and all(map(is_text, texts))
    return is_text(item)


def message_types(kind: pa.DataType) -> dict[str, pa.DataType]:
    """The types of a message's fields, in a list of structs or a struct of lists. Empty for any other type."""
    kind = storage_type(kind)
    if is_list(kind) and pa.types.is_struct(kind.value_type):
        return {field.name: field.type for field in kind.value_type}
    if pa.types.is_struct(kind):
        return {field.name: field.type.value_type for field in kind if is_list(field.type)}
    return {}


def arrow_frame(
    columns: Columns, messages: pa.Array | None, source: pa.Array | None, texts: Sequence[pa.Array]
) -> pl.DataFrame:
    """The frame of a reader, from the arrays of the columns that are read.

    Raises pyarrow.ArrowInvalid for bytes that are not UTF-8.
    """
    made: dict[str, pl.Series] = {}
    if messages is not None:
        rules = ChatRules(columns.chat_format, columns.reasoning)
        made[MESSAGES_COLUMN], made[LEFT_OUT_COLUMN], made[MISFIT_COLUMN] = _chats(messages, rules)
    if source is not None:
        made[SOURCE_COLUMN] = as_text(source)
    for name, array in zip(columns.texts, texts, strict=True):
        made[text_column(name)] = as_text(array)
    schema, height = frame_schema(columns), max(map(len, made.values()), default=0)
    return pl.DataFrame({name: made.get(name, pl.Series([None] * height, dtype=kind)) for name, kind in schema.items()})


def as_text(array: pa.Array) -> pl.Series:
    """An array as text. Raises pyarrow.ArrowInvalid for bytes that are not UTF-8."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_floating(storage_type(array.type)):  # as Python writes them, and JSON's reader
        texts = [None if value is None else str(value) for value in array.to_pylist()]
        return pl.Series(texts, dtype=pl.String)
    return _as_series(array.cast(TEXT))


def _as_series(array: pa.Array) -> pl.Series:
    """The same values for polars, without a copy."""
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def _chats(array: pa.Array, rules: ChatRules) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Messages, kinds of parts left out, and misfit, of an array of chats."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    fits = pl.Series([None] * len(array), dtype=pl.String)
    plain = _plain_messages(array, rules)
    if plain is not None:
        return plain, pl.Series([None] * len(array), dtype=pl.List(pl.String)), fits
    chats: list[Chat] = []
    misfit: list[str | None] = []
    is_json = is_text(array.type)
    for value in (array.cast(TEXT) if is_json else array).to_pylist():
        try:
            chats.append(chat_of_json(value, rules) if is_json else read_chat(value, rules))
            misfit.append(None)
        except NotAChatError:
            chats.append(Chat(None, []))
            misfit.append("not_a_chat")
    return (
        pl.Series([chat.messages for chat in chats], dtype=messages_type(rules.reasoning)),
        pl.Series([chat.left_out or None for chat in chats], dtype=pl.List(pl.String)),
        pl.Series(misfit, dtype=pl.String),
    )


def _plain_messages(array: pa.Array, rules: ChatRules) -> pl.Series | None:
    """The messages of a list of structs whose fields are plain text; None if they need more than renaming."""
    if not (is_list(array.type) and pa.types.is_struct(array.type.value_type)):
        return None
    # Through polars: pyarrow imports pandas, if it is installed, before it converts a value of Python or numpy.
    lengths = _as_series(pc.list_value_length(array)).fill_null(0).cast(pl.Int64)
    offsets = pl.concat([pl.Series([0]), lengths.cum_sum()]).to_arrow()
    values = array.flatten()
    there = {field.name: pc.struct_field(values, i) for i, field in enumerate(values.type)}
    if rules.tool_calls and any(there[name].null_count < len(values) for name in TOOL_CALL_FIELDS if name in there):
        return None
    pairs = [keys for keys in KEYS[rules.chat_format] if keys[0] in there or keys[1] in there]
    wanted = [name for keys in pairs for name in keys] + (list(REASONING_FIELDS) if rules.reasoning else [])
    used = {name: there[name] for name in wanted if name in there}
    flags = {name for name in REASONING_FIELDS if name in used and pa.types.is_primitive(used[name].type)}
    if not all(is_text(its.type) for name, its in used.items() if name not in flags):
        return None
    nulls = pa.nulls(len(values), TEXT)
    text = {name: nulls if name in flags else its.cast(TEXT) for name, its in used.items()}
    role, content = _choose(pairs, text, nulls)
    fields = {"role": role, "content": content}
    if rules.reasoning:
        fields |= {name: text.get(name, nulls) for name in REASONING_FIELDS}
    struct = pa.StructArray.from_arrays(list(fields.values()), names=list(fields), mask=values.is_null())
    return _as_series(pa.LargeListArray.from_arrays(offsets, struct, mask=array.is_null()))


def _choose(pairs: Sequence[tuple[str, str]], text: dict[str, pa.Array], nulls: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Role and content of each message, under the first key that has a value."""
    roles = [_canonical(text.get(role, nulls)) if role == "from" else text.get(role, nulls) for role, _ in pairs]
    return pc.coalesce(*roles), pc.coalesce(*(text.get(content, nulls) for _, content in pairs))


def _canonical(roles: pa.Array) -> pa.Array:
    """As chat_role, for an array."""
    is_assistant = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(roles)), pa.array(ASSISTANT, TEXT))
    return pc.if_else(is_assistant, pa.scalar("assistant", TEXT), roles)
