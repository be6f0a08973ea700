"""JSONL of any kind: the rows are json.loads's, line by line, or an error names the first line that is wrong."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import embedkit.data.json_file
from embedkit.data.columns import Columns
from embedkit.data.dataset import check_columns, open_dataset, read_rows, read_sources
from embedkit.data.text_file import text_layout
from embedkit.errors import EmbedkitError, UsageError
from tests.support.fuzzing import damaged, deep_json, json_values, tries

Row = tuple[list[Any] | None, str]

text = st.none() | st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["\u2028", "\x85", "\0", '"'])
messages = st.none() | st.lists(
    st.none() | st.fixed_dictionaries({}, optional={"role": text, "content": text, "other": json_values}), max_size=3
)
good_row = st.fixed_dictionaries({}, optional={"messages": messages, "dataset_source": text, "x": json_values})
good_line = st.builds(lambda row, ascii: json.dumps(row, ensure_ascii=ascii).encode(), good_row, st.booleans())
odd_line = st.one_of(
    st.sampled_from([b"", b" ", b"\t\r", b"\x0c", b"\x00", b"\xef\xbb\xbf", b"\xef\xbb\xbf{}", b"null", b"[]", b"NaN"]),
    st.sampled_from(
        [
            b'{"dataset_source": "a", "dataset_source": "b"}',
            b'{"messages": [], "messages": null}',
            b'{"dataset_source": "\\ud800"}',
            b'{"dataset_source": "\\ud83d\\ude42"}',
            b'{"x": 1e999, "y": -0, "z": 00}',
            b'{"x": NaN}',
            b'{"x": ' + b"9" * 400 + b"}",
            b'{"messages": [{"role": 1}]}',
            b'{"dataset_source": 1}',
            b'{"dataset_source": "\xff"}',
            b'{"x": "\xff"}',
            b'{"dataset_source": "a"} {"dataset_source": "b"}',
            '{"dataset_source": "a"}'.encode("utf-16"),
        ]
    ),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")),
    json_values.map(lambda value: json.dumps(value).encode()),
    deep_json,
    deep_json.map(lambda deep: b'{"x": ' + deep + b"}"),
    deep_json.map(lambda deep: b'{"messages": ' + deep + b"}"),
    good_line.flatmap(damaged).map(lambda data: data.replace(b"\n", b"")),
)
lines = st.lists(
    st.tuples(good_line | good_line | good_line | odd_line, st.sampled_from([b"\n", b"\r\n"])), max_size=12
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    drawn = draw(lines)
    data = b"".join(line + end for line, end in drawn)
    return data[: -len(drawn[-1][1])] if drawn and draw(st.booleans()) else data


def plain_row(line: bytes) -> Row:
    """A line's row in the plainest reading. Raises ValueError or RecursionError if it is none."""
    value = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode())
    if not isinstance(value, dict):
        raise ValueError("not an object")
    source = value.get("dataset_source")
    if isinstance(source, list | dict):
        raise ValueError("the source")
    source = json.dumps(source) if isinstance(source, bool) else "" if source is None else str(source)
    messages = plain_messages(value.get("messages"))
    for string in [source, *(v for m in messages or [] for v in m.values())]:
        (string or "").encode()  # a ValueError for half of a surrogate pair
    return messages, source


def plain_messages(value: Any) -> list[Any] | None:
    """A chat in the plainest reading; None for none, and for what is no chat."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, dict):
        lists = {key: items for key, items in value.items() if isinstance(items, list)}
        if not lists or len(set(map(len, lists.values()))) > 1:
            return None
        value = [dict(zip(lists, items, strict=True)) for items in zip(*lists.values(), strict=True)]
    if not isinstance(value, list) or not all(m is None or isinstance(m, dict) for m in value):
        return None
    messages = [{"role": (m or {}).get("role"), "content": (m or {}).get("content")} for m in value]
    return messages if all(isinstance(text, str | None) for m in messages for text in m.values()) else None


def read_all(path: Path) -> list[Row]:
    dataset = open_dataset([path], Columns("messages", "dataset_source"))
    frames = list(read_rows(dataset, np.arange(dataset.rows)))
    rows = pl.concat(frames).select("messages", "dataset_source").rows() if frames else []
    # A null message and one whose role and content are null mean the same.
    nothing = {"role": None, "content": None}
    rows = [(None if m is None else [message or nothing for message in m], source) for m, source in rows]
    sources = [source for frame in read_sources(dataset) for source in frame["dataset_source"]]
    assert sources == [source for _, source in rows]
    assert [row for frame in frames for row in frame["row"]] == list(range(dataset.rows))
    return rows


def is_the_same(line: bytes, row: Row) -> bool:
    try:
        return plain_row(line) == row
    except RecursionError:
        return True  # each reader has its own limit
    except ValueError:
        # Bytes and numbers in fields that are not read are not looked at as closely.
        return plain_row(line.decode(errors="replace").encode()) == row


@given(files())
@example(b"")
@example(b"\n\n \n")
@example(b'{"dataset_source": "a"}\r\n\r\n{"dataset_source": []}')
@example(b"n\x00\r\n")
@tries(200)
def test_jsonl_reads_as_json_loads_or_names_the_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    is_lines = text_layout(path).encoding == "utf-8" and not data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(
        b"["
    )
    lines_of = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    numbered = [(i, line) for i, line in enumerate(lines_of, 1) if line.strip()]
    with suppress(EmbedkitError):
        check_columns(path, Columns("messages", "dataset_source"))
    try:
        rows = read_all(path)
    except UsageError:  # it begins like a file of another kind
        assert not data.lstrip().startswith(b"{")
        return
    except EmbedkitError as error:
        if is_lines:  # else it begins like an array, or like UTF-16
            check_the_line_is_named(str(error), numbered)
        return
    if not is_lines:
        return
    assert len(rows) == len(numbered)
    assert all(is_the_same(line, row) for (_, line), row in zip(numbered, rows, strict=True))


def check_the_line_is_named(error: str, numbered: list[tuple[int, bytes]]) -> None:
    """The error names a line that is wrong, and none before it is."""
    named = re.search(r"rows\.jsonl:.*? line (\d+)[,:]", error, re.DOTALL)
    assert named, error
    number = int(named[1])
    assert all(is_readable(line) for i, line in numbered if i < number), error
    assert not is_readable(dict(numbered)[number], strictly=True), error


def is_readable(line: bytes, strictly: bool = False) -> bool:
    """Whether a line is a row; where readers may differ (depth, bytes of unread fields), the lenient answer."""
    try:
        plain_row(line)
    except RecursionError:
        return not strictly
    except ValueError:
        try:
            plain_row(line.decode(errors="replace").encode())
        except (ValueError, RecursionError):
            return False
        return not strictly
    return not strictly or line.count(b"[") + line.count(b"{") < 100


def test_blocks_of_any_size_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    data = b"".join(b'{"dataset_source": "%d"}\r\n\n' % i for i in range(50)) + b'{"dataset_source": "last"}'
    path.write_bytes(data)
    whole = read_all(path)
    assert len(whole) == 51
    for size in (1, 2, 7, 50, 51):
        monkeypatch.setattr(embedkit.data.json_file, "BLOCK_ROWS", size)
        assert read_all(path) == whole
        path.write_bytes(data.replace(b'"40"', b"[]"))
        with pytest.raises(EmbedkitError, match=r"line 81: "):
            read_all(path)
        path.write_bytes(data)
