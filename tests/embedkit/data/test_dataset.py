"""Reading: Parquet and JSONL alike, in order, any rows; and clear errors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.data.columns import Columns
from embedkit.data.dataset import check_columns, identify, open_dataset, read_rows, read_sources, row_bytes
from embedkit.data.find_files import find_files
from embedkit.errors import EmbedkitError, UsageError
from tests.conftest import chat, write_chats


def read_all(paths: list[Path], rows: list[int] | None = None) -> list[dict[str, Any]]:
    dataset = open_dataset(paths, Columns("messages", "dataset_source"))
    wanted = np.arange(dataset.rows) if rows is None else np.array(rows, np.int64)
    columns = ("row", "messages", "dataset_source")
    return [row for frame in read_rows(dataset, wanted) for row in frame.select(columns).to_dicts()]


def test_parquet_and_jsonl_read_alike(tmp_path: Path) -> None:
    chats: list[Any] = [chat(f"é{i}", "a\u2028b\r") for i in range(2500)]
    chats[7], chats[8] = None, [{"role": "user", "content": None}]
    sources: list[str | None] = [None if i % 3 else f"s{i}" for i in range(2500)]
    parquet = write_chats(tmp_path / "a.parquet", chats, sources)
    jsonl = write_chats(tmp_path / "a.jsonl", chats, sources)
    assert read_all([parquet]) == read_all([jsonl])
    assert read_all([parquet])[8] == {
        "row": 8,
        "messages": [{"role": "user", "content": None}],
        "dataset_source": "",
    }


@given(rows=st.sets(st.integers(0, 4999), max_size=40), kind=st.sampled_from(["parquet", "jsonl"]))
@settings(max_examples=30, deadline=None)
def test_any_rows_across_files(rows: set[int], kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / f"across-{kind}"
    if not folder.exists():
        folder.mkdir()
        for i in range(2):
            write_chats(folder / f"{i}.{kind}", [chat(str(r), "a") for r in range(2500 * i, 2500 * i + 2500)])
    got = read_all(find_files([str(folder)]), sorted(rows))
    assert [(r["row"], r["messages"][0]["content"]) for r in got] == [(r, str(r)) for r in sorted(rows)]


def test_files_are_found_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "sub/c.jsonl", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in find_files([str(tmp_path)])] == ["a.parquet", "b.parquet", "c.jsonl"]
    assert [p.name for p in find_files([f"{tmp_path}/b*", f"{tmp_path}/a.parquet"])] == ["b.parquet", "a.parquet"]
    with pytest.raises(UsageError, match="no data file there"):
        find_files([str(tmp_path / "nothing*")])
    with pytest.raises(UsageError, match=r"notes\.txt: only \.parquet, \.pq, "):
        find_files([str(tmp_path / "notes.txt")])
    with pytest.raises(UsageError, match="twice"):
        find_files([str(tmp_path), str(tmp_path / "a.parquet")])


def test_extra_columns_and_fields_are_left_alone(tmp_path: Path) -> None:
    row = {
        "id": 5,
        "messages": [{"role": "user", "content": "q", "tool_calls": [1]}],
        "dataset_source": "s",
        "extra": {"a": 1},
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n\n  \n" + json.dumps(row))
    pl.DataFrame([row, row]).write_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        check_columns(tmp_path / name, Columns("messages", "dataset_source"))
        assert [r["messages"] for r in read_all([tmp_path / name])] == [[{"role": "user", "content": "q"}]] * 2


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"messages": [', "truncated"),
        ('{"dataset_source": [3]}', "the source, column 'dataset_source', is a list or an object"),
        ('{"messages": [{"role": "user", "content": "\\xff"}]}', "invalid escape"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "not a readable row"),
    ],
)
def test_a_broken_line_is_named(line: str, what: str, tmp_path: Path) -> None:
    good = json.dumps({"messages": chat("q", "a"), "dataset_source": "s"})
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([good, "", good, line, good]))
    with pytest.raises(EmbedkitError, match=rf"a\.jsonl: line 4(, column \d+)?: .*{what}"):
        read_all([path])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{\n  "messages": []\n}\n', "line 1: an object that does not end on its line; write each object on one line"),
        ('[{"role": "user"}]\n[{"role": "user"}]\n', "line 2, column 1: a second array; a file has one array of obj"),
    ],
)
def test_json_of_another_layout_is_explained(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(EmbedkitError, match=rf"a\.jsonl: {what}"):
        read_all([path])


def test_columns_are_checked(tmp_path: Path) -> None:
    path = write_chats(tmp_path / "a.parquet", [chat("q", "a")])
    with pytest.raises(UsageError, match=r"no column 'chats' .* there are: dataset_source, messages"):
        check_columns(path, Columns("chats", "dataset_source"))
    with pytest.raises(UsageError, match=r"column 'messages' is .*; a source must be text or a number"):
        check_columns(path, Columns(None, "messages"))


def test_a_truncated_parquet_is_named(tmp_path: Path) -> None:
    path = write_chats(tmp_path / "a.parquet", [chat("q", "a")] * 100)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(EmbedkitError, match=r"a\.parquet: not a whole Parquet file"):
        identify(path)


def test_identity_tells_files_apart(tmp_path: Path) -> None:
    one = identify(write_chats(tmp_path / "a.parquet", [chat("q", "a")]))
    again = identify(write_chats(tmp_path / "a.parquet", [chat("q", "a")]))
    other = identify(write_chats(tmp_path / "a.parquet", [chat("q", "b")]))
    assert one == again != other


def test_sources_and_sizes_cover_every_row(tmp_path: Path) -> None:
    path = write_chats(tmp_path / "a.parquet", [chat("q", "a" * 10 * i) for i in range(3000)], ["x"] * 3000)
    dataset = open_dataset([path], Columns("messages", "dataset_source"))
    frames = pl.concat(read_sources(dataset))
    assert frames["row"].to_list() == list(range(3000))
    sizes = row_bytes(dataset)
    assert len(sizes) == 3000
    assert sizes[0] < sizes[-1]
