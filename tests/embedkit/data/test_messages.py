"""Reasoning fields of messages: text from every type that can hold it, the same from Parquet and JSONL."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit.data.columns import Columns
from embedkit.data.dataset import check_columns, open_dataset, read_rows
from embedkit.errors import UsageError

PART = pa.struct([("type", pa.string()), ("text", pa.string()), ("thinking", pa.string())])


def written(folder: Path, name: str, kind: pa.DataType | None, values: list[Any]) -> Path:
    """A Parquet file whose messages have one value of a field each; without the field if there is no type."""
    fields = [("role", pa.string()), ("content", pa.string())] + ([(name, kind)] if kind is not None else [])
    chats = [[{"role": "assistant", "content": "a", name: value}] for value in values]
    if kind is None:
        chats = [[{"role": "assistant", "content": "a"}] for _ in values]
    path = folder / f"{len(list(folder.iterdir()))}.parquet"
    columns = {"messages": pa.array(chats, pa.list_(pa.struct(fields))), "dataset_source": ["s"] * len(chats)}
    pq.write_table(pa.table(columns), path)
    return path


def as_jsonl(folder: Path, name: str, values: list[Any]) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.jsonl"
    rows = [
        {"messages": [{"role": "assistant", "content": "a", name: value}], "dataset_source": "s"} for value in values
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def read_field(paths: list[Path], name: str, reasoning: bool = True) -> list[Any]:
    for path in paths:
        check_columns(path, Columns("messages", "dataset_source", reasoning=reasoning))
    dataset = open_dataset(paths, Columns("messages", "dataset_source", reasoning=reasoning))
    rows = [row for frame in read_rows(dataset, np.arange(dataset.rows)) for row in frame["messages"].to_list()]
    return [chat[0].get(name) for chat in rows]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize(
    ("kind", "values", "texts"),
    [
        (pa.string(), ["r", None, " r\n"], ["r", "", " r\n"]),
        (pa.large_string(), ["é", None], ["é", ""]),
        (pa.null(), [None], [""]),
        (pa.bool_(), [True, None], ["", ""]),
        (pa.int64(), [1, None], ["", ""]),
        (pa.float64(), [0.5, None], ["", ""]),
        (pa.list_(pa.string()), [["r", "", "s", None], None, []], ["r\n\ns", "", ""]),
        (pa.large_list(pa.large_string()), [["r"]], ["r"]),
        (pa.list_(pa.null()), [[None], []], ["", ""]),
        (
            pa.list_(PART),
            [[{"type": "x", "text": "r"}, None, {"type": "x", "text": "", "thinking": "s"}], None],
            ["r\n\ns", ""],
        ),
    ],
)
def test_reasoning_is_read_alike(name: str, kind: Any, values: list[Any], texts: list[str], tmp_path: Path) -> None:
    parquet, jsonl = written(tmp_path, name, kind, values), as_jsonl(tmp_path, name, values)
    for path in (parquet, jsonl):
        assert [text or "" for text in read_field([path], name)] == texts
        assert read_field([path], name, reasoning=False) == [None] * len(values)


def test_a_field_may_be_in_some_files_only(tmp_path: Path) -> None:
    paths = [
        written(tmp_path, "reasoning", None, [None]),
        written(tmp_path, "reasoning", pa.string(), ["r"]),
        written(tmp_path, "reasoning", pa.null(), [None]),
        as_jsonl(tmp_path, "thinking", ["t"]),
        written(tmp_path, "reasoning", pa.list_(pa.string()), [["p", "q"]]),
    ]
    assert read_field(paths, "reasoning") == [None, "r", None, None, "p\n\nq"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.struct([("effort", pa.string())]), {"effort": "high"}),
        (pa.list_(pa.struct([("image", pa.string())])), [{"image": "i"}]),
        (pa.list_(pa.int64()), [1]),
        (pa.list_(pa.list_(pa.string())), [["r"]]),
    ],
)
def test_reasoning_without_text_is_refused(kind: Any, value: Any, tmp_path: Path) -> None:
    """A Parquet file is refused by its type. JSONL has no types, so the row is dropped.

    A run that does not look for reasoning reads both.
    """
    parquet, jsonl = written(tmp_path, "reasoning", kind, [value]), as_jsonl(tmp_path, "reasoning", [None, value])
    with pytest.raises(UsageError, match=r"0\.parquet: column 'messages': the field 'reasoning' .* which is no text"):
        read_field([parquet], "reasoning")
    rows = open_dataset([jsonl], Columns("messages", "dataset_source", reasoning=True))
    assert [frame["misfit"].to_list() for frame in read_rows(rows, np.arange(2))] == [[None, "not_a_chat"]]
    assert read_field([parquet, jsonl], "reasoning", reasoning=False) == [None] * 3
