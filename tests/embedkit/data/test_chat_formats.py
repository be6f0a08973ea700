"""Chats in every known shape: the same messages from JSON and from Parquet, and what they should be by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data import Columns, open_dataset, read_rows
from embedkit.data.chat_values import ChatRules, NotAChatError, read_chat
from tests.support.fuzzing import tries

AUTO = Columns("messages", None, chat_format="auto", reasoning=True)
CALL = {"function": {"name": "f", "arguments": '{"a": 1}'}}
CALL_TEXT = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def read(path: Path, columns: Columns = AUTO) -> list[tuple[Any, Any, Any]]:
    """(messages without their nulls, misfit, left out) of each row."""
    dataset = open_dataset([path], columns)
    rows = [row for frame in read_rows(dataset, np.arange(dataset.rows)) for row in frame.to_dicts()]
    return [(without_nulls(row["messages"]), row["misfit"], row["left_out"]) for row in rows]


def without_nulls(messages: list[Any] | None) -> Any:
    return messages and [{name: text for name, text in (m or {}).items() if text is not None} for m in messages]


def as_jsonl(folder: Path, chats: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    return path


def as_parquet(folder: Path, chats: list[Any], kind: pa.DataType | None = None) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(pa.table({"messages": pa.array(chats, kind)}), path)
    return path


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


CONTENTS = {
    "text": ("q", "q", None),
    "null": (None, None, None),
    "one text": ([{"type": "text", "text": "q"}], "q", None),
    "two texts": ([{"type": "text", "text": "q"}, {"type": "text", "text": "r"}], "q\n\nr", None),
    "texts alone": (["q", "r"], "q\n\nr", None),
    "a part that is null": ([{"type": "text", "text": "q"}, None], "q", None),
    "no parts": ([], "", None),
    "an image": ([{"type": "image_url", "image_url": {"url": "u"}}], "", ["image"]),
    "image and text": ([{"type": "input_image"}, {"type": "input_text", "text": "q"}], "q", ["image"]),
    "audio": ([{"type": "input_audio"}, {"type": "audio_url"}], "", ["audio", "audio"]),
    "a part without type": ([{"text": "q"}], "q", None),
    "a text by another key": ([{"type": "text", "value": "q"}, {"type": "text", "content": "r"}], "q\n\nr", None),
    "a text in an object": ([{"type": "text", "text": {"value": "q"}}], "q", None),
    "a text that is null": ([{"type": "text", "text": None}], "", None),
    "a refusal": ([{"type": "refusal", "refusal": "no"}], "no", None),
    "one part": ({"type": "text", "text": "q"}, "q", None),
    "parts inside": ({"content_type": "text", "parts": ["q", "r"]}, "q\n\nr", None),
    "a result of a tool": ([{"type": "tool_result", "content": [{"type": "text", "text": "q"}]}], "q", None),
    "a call of a tool": ([{"type": "tool_use", "name": "f", "input": {"a": 1}}], CALL_TEXT, None),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contents_of_all_kinds_become_text(name: str, tmp_path: Path) -> None:
    content, text, left_out = CONTENTS[name]
    expected = [({"role": "user"} | ({} if text is None else {"content": text}))]
    for path in (as_jsonl(tmp_path, [[user(content)]]), as_parquet(tmp_path, [[user(content)]])):
        assert read(path) == [(expected, None, left_out)]


@pytest.mark.parametrize("part", [{"type": "thinking", "thinking": "t"}, {"type": "reasoning", "text": "t"}])
def test_a_thinking_part_is_reasoning(part: dict[str, Any], tmp_path: Path) -> None:
    chat = [{"role": "assistant", "content": [part, {"type": "text", "text": "a"}]}]
    for path in (as_jsonl(tmp_path, [chat]), as_parquet(tmp_path, [chat])):
        assert read(path)[0][0] == [{"role": "assistant", "content": "a", "thinking": "t"}]


CALLS = {
    "OpenAI": ({"tool_calls": [CALL, CALL]}, f"{CALL_TEXT}\n\n{CALL_TEXT}"),
    "arguments as an object": ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, CALL_TEXT),
    "flat": ({"tool_calls": [{"name": "f", "arguments": {"a": 1}}]}, CALL_TEXT),
    "before tools": ({"function_call": {"name": "f", "arguments": '{"a": 1}'}}, CALL_TEXT),
    "Olmo": ({"function_calls": "f(a=1)"}, "f(a=1)"),
    "arguments that are no JSON": (
        {"function_call": {"name": "f", "arguments": "a=1"}},
        '<tool_call>\n{"name": "f", "arguments": "a=1"}\n</tool_call>',
    ),
    "JSON": ({"tool_calls": json.dumps([CALL])}, CALL_TEXT),
    "JSON of none": ({"tool_calls": "[]", "function_call": "null"}, None),
    "a call of nulls": ({"function_call": {"name": None, "arguments": None}}, None),
    "an argument that is null": (
        {"tool_calls": [{"name": "f", "arguments": {"a": 1, "b": None}}]},
        CALL_TEXT,
    ),
    "none": ({"tool_calls": None}, None),
    "no calls": ({"tool_calls": []}, None),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_tools_follow_the_content(name: str, tmp_path: Path) -> None:
    fields, text = CALLS[name]
    chats = [[{"role": "assistant", "content": content, **fields}] for content in ("a", None)]
    both = "a" if text is None else f"a\n\n{text}"
    for path in (as_jsonl(tmp_path, chats), as_parquet(tmp_path, chats)):
        assert [row[0][0].get("content") for row in read(path)] == [both, text]


def test_classic_leaves_calls_and_parts_of_reasoning_out(tmp_path: Path) -> None:
    """A row that the replaced scripts could read has the texts that they gave."""
    chat = [{"role": "assistant", "content": "a", "tool_calls": [CALL], "reasoning": "r"}]
    columns = Columns("messages", None, chat_format="auto", reasoning=False)
    for path in (as_jsonl(tmp_path, [chat]), as_parquet(tmp_path, [chat])):
        assert read(path, columns) == [([{"role": "assistant", "content": "a"}], None, None)]


SHAPES = {
    "ShareGPT": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
    "ShareGPT in capitals": [{"from": "Human", "value": "q"}, {"from": " GPT", "value": "a"}],
    "OpenAI": [{"role": "human", "content": "q"}, {"role": "assistant", "content": "a"}],
    "JSON text": json.dumps([{"role": "human", "content": "q"}, {"role": "assistant", "content": "a"}]),
    "lists": {"role": ["human", "assistant"], "content": ["q", "a"]},
    "lists of ShareGPT": {"from": ["human", "gpt"], "value": ["q", "a"]},
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_chat_of_any_shape_has_the_same_messages(name: str, tmp_path: Path) -> None:
    for path in (as_jsonl(tmp_path, [SHAPES[name], None]), as_parquet(tmp_path, [SHAPES[name], None])):
        first, none = read(path)
        roles = [message["role"].lower() for message in first[0]]
        assert (roles, [message["content"] for message in first[0]]) == (["human", "assistant"], ["q", "a"])
        assert none == (None, None, None)


def test_keys_of_two_formats_may_be_mixed_in_a_message(tmp_path: Path) -> None:
    chat = [{"from": "human", "content": "q"}, {"role": "assistant", "value": "a"}]
    for path in (as_jsonl(tmp_path, [chat]), as_parquet(tmp_path, [chat])):
        expected = [{"role": "human", "content": "q"}, {"role": "assistant", "content": "a"}]
        assert read(path) == [(expected, None, None)]


def test_each_message_may_have_its_own_format(tmp_path: Path) -> None:
    """In a table, each message has all keys; those without a value do not count."""
    chats = [[{"role": "user", "content": "q"}, {"from": "gpt", "value": "a"}], [{"from": "gpt", "value": "b"}]]
    for path in (as_jsonl(tmp_path, chats), as_parquet(tmp_path, chats)):
        assert [[m["content"] for m in row[0]] for row in read(path)] == [["q", "a"], ["b"]]
        only = Columns("messages", None, chat_format="sharegpt", reasoning=True)
        assert read(path, only)[1] == ([{"role": "assistant", "content": "b"}], None, None)
    assert read(as_jsonl(tmp_path, chats), only)[0] == (None, "not_a_chat", None)


@pytest.mark.parametrize(
    ("text", "misfit"),
    [
        (r'[{"role": "user", "content": "\ud800"}]', "not_a_chat"),
        (r'[{"role": "user", "content": NaN}]', "not_a_chat"),
        ('[{"role": "user", "content"', "not_a_chat"),
        (json.dumps(json.dumps([user("q")])), None),
        ("null", None),
        ("", None),
    ],
)
def test_a_chat_as_text_is_judged_alike_in_every_format(text: str, misfit: str | None, tmp_path: Path) -> None:
    """The text is one whole value of its file, whatever is wrong in it."""
    read_rows = [read(as_jsonl(tmp_path, [text])), read(as_parquet(tmp_path, [text]))]
    assert read_rows[0] == read_rows[1]
    assert read_rows[0][0][1] == misfit


@pytest.mark.parametrize(
    "value",
    [
        *([user([{"x": 1}])], [user({"a": 1})], [user([{"type": "text", "text": 3}])]),
        *(3, 0.5, True, "hello", "[", "3", [3], ["hello"], [[]], {"a": 1}, {"role": ["user"], "content": []}),
        *(
            [{}],
            [{"speaker": "x", "text": "y"}],
            [user(3)],
            [user([3])],
            [user([{"type": 3}])],
            [user("q", thinking={})],
        ),
        *([{"role": 3, "content": "q"}], [user("q", reasoning=[3])], [user("q", reasoning=[{"image": "i"}])]),
    ],
)
def test_what_is_no_chat_is_a_misfit(value: Any, tmp_path: Path) -> None:
    good = [{"role": "assistant", "content": "a"}]
    assert read(as_jsonl(tmp_path, [value, good])) == [(None, "not_a_chat", None), (good, None, None)]
    with pytest.raises(NotAChatError):
        read_chat(value, ChatRules("auto", reasoning=True))


KINDS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "binary": pa.binary(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}
LISTS = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "list_view": pa.list_view,
    "fixed_size_list": lambda kind: pa.list_(kind, 2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("around", LISTS)
def test_every_arrow_text_and_list_type_is_read(kind: str, around: str) -> None:
    """In memory, since Parquet cannot store all of them."""
    from embedkit.data.arrow_chats import arrow_frame, fits_chats

    chat = [{"role": "user", "content": "qé"}, {"role": "assistant", "content": None}]
    for keys in (("role", "content"), ("from", "value")):
        values = [{keys[0]: m["role"], keys[1]: m["content"]} for m in chat]
        encoded = [{k: v.encode() if v else v for k, v in m.items()} for m in values] if kind == "binary" else values
        array = pa.array([encoded, None], LISTS[around](pa.struct([(key, KINDS[kind]) for key in keys])))
        assert fits_chats(array.type, AUTO)
        frame = arrow_frame(AUTO, array, None, [])
        expected = [{"role": "user", "content": "qé"}, {"role": "assistant"}]
        assert [without_nulls(m) for m in frame["messages"].to_list()] == [expected, None]


roles = st.sampled_from(["user", "Assistant", "bot"])
texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=4)
part = st.fixed_dictionaries({"type": st.sampled_from(["text", "image"]), "text": texts})
plain = st.fixed_dictionaries({"role": roles, "content": texts, "thinking": texts})
sharegpt = st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt"]), "value": texts})
with_parts = st.fixed_dictionaries({"role": roles, "content": st.lists(st.none() | part, max_size=3)})


@given(st.sampled_from([plain, sharegpt, with_parts]).flatmap(lambda m: st.lists(st.none() | st.lists(m), min_size=1)))
@tries(60)
def test_parquet_and_json_give_the_same_messages(tmp_path: Path, chats: list[Any]) -> None:
    table = pa.array(chats)
    if not pa.types.is_list(table.type) or not pa.types.is_struct(table.type.value_type):
        return  # no row has a message
    assert read(as_parquet(tmp_path, chats)) == read(as_jsonl(tmp_path, chats))
