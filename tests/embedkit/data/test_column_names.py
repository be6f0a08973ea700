"""Columns may have any names: the rows are those that plain Python reads."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedkit.data.columns import Columns
from embedkit.data.dataset import check_columns, open_dataset, read_rows, read_sources
from embedkit.data.parquet import leaf_columns, read_texts
from embedkit.data.sampling import sample_rows
from embedkit.errors import UsageError
from embedkit.forecast.estimate import estimate_rows
from embedkit.request import Options, make_config
from tests.conftest import chat
from tests.support.fuzzing import tries

ODD = [
    *(
        "row",
        "messages",
        "dataset_source",
        "source",
        "rank",
        "len",
        "bucket",
        "column_0",
        "literal",
        "",
        " ",
        "*",
        "**",
    ),
    *("^.*$", "^row$", "^(messages|row)$", "a.b", "a", "a.b.list.element.content", ".", "é", "e\u0301", "漢字", "🙂"),
    *('"', '\\"', "\\", "'", "`", "\n", "\t", "\x7f", "Row", "ROW", "Messages", "\u2028", "null", "0", "-1", "a b"),
]
names = st.sampled_from(ODD) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
MESSAGE = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def escaped(key: str) -> str:
    """A key in JSON with every UTF-16 unit as an escape."""
    units = key.encode("utf-16-be").hex()
    return '"' + "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)) + '"'


def written(folder: Path, messages: str, source: str, other: str, escape: str = "no") -> tuple[Path, Path, Any]:
    """Three rows as Parquet and as JSONL, with a third column in between; and what plain Python gives of them."""
    chats = [chat("q 0", "a 0"), None, chat("q 2", "a 2")]
    sources = ["wiki", "code", None]
    rows = [{messages: m, other: f"other {i}", source: s} for i, (m, s) in enumerate(zip(chats, sources, strict=True))]
    kinds = [MESSAGE, pa.string(), pa.string()]
    columns = [
        pa.array([row[name] for row in rows], kind) for name, kind in zip((messages, other, source), kinds, strict=True)
    ]
    pq.write_table(pa.table(columns, names=[messages, other, source]), folder / "a.parquet", row_group_size=2)
    lines = [json.dumps(row, ensure_ascii=escape == "ascii") for row in rows]
    if escape == "all":
        lines = ["{" + ", ".join(f"{escaped(key)}: {json.dumps(row[key])}" for key in row) + "}" for row in rows]
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    loaded = [json.loads(line) for line in lines]
    plain = [{"row": i, "messages": row[messages], "dataset_source": row[source] or ""} for i, row in enumerate(loaded)]
    return folder / "a.parquet", folder / "a.jsonl", plain


def rows_of(frames: Iterable[pl.DataFrame]) -> list[dict[str, Any]]:
    return [row for frame in frames for row in frame.select("row", "messages", "dataset_source").to_dicts()]


@given(
    columns=st.lists(names, min_size=3, max_size=3, unique=True),
    escape=st.sampled_from(["no", "ascii", "all"]),
)
@example(columns=["messages", "row", "dataset_source"], escape="no")
@example(columns=["row", "messages", "source"], escape="all")
@example(columns=["^.*$", "*", "row"], escape="no")
@example(columns=["a", "a.b", "a.b.list.element.content"], escape="ascii")
@tries(100)
def test_any_column_names_give_the_rows_of_plain_python(columns: list[str], escape: str, tmp_path: Path) -> None:
    messages, source, other = columns
    for path in (files := written(tmp_path, messages, source, other, escape))[:2]:
        check_columns(path, Columns(messages, source))
        dataset = open_dataset([path], Columns(messages, source))
        assert rows_of(read_rows(dataset, np.arange(3))) == files[2]
        assert rows_of(read_rows(dataset, np.array([2]))) == files[2][2:]
        sources = [row for frame in read_sources(dataset) for row in frame.to_dicts()]
        assert sources == [{"row": i, "dataset_source": s} for i, s in enumerate(["wiki", "code", ""])]
        assert sample_rows(read_sources(dataset), 1, None).tolist() == [0, 1, 2]
    assert [text for texts in read_texts(files[0], source) for text in texts] == ["wiki", "code", ""]


@pytest.mark.parametrize("columns", [("a", "b", "a.b"), ("a.b", "*", "a"), ("row", "^.*$", "_row_"), ("m", '"', "x")])
def test_a_plan_takes_columns_of_any_name(columns: tuple[str, str, str], tokenizer_only: Path, tmp_path: Path) -> None:
    messages, source, _ = columns
    options = Options(
        dataset=(str(written(tmp_path, *columns)[0]),),
        model=str(tokenizer_only),
        engine="hash",
        max_length=64,
        messages_column=messages,
        source_column=source,
        sample_size=1,
    )
    estimate = estimate_rows(make_config(options, []), probes=8)
    assert (estimate.rows_chosen, estimate.sources) == (3, 3)


def test_a_field_and_a_column_of_one_dotted_path_differ(tmp_path: Path) -> None:
    struct = pa.array([{"b": "field", "c": [{"d": 1}]}] * 2)
    table = pa.table([struct, pa.array(["x", "y"]), pa.array([[], []], MESSAGE)], names=["a", "a.b", "m"])
    pq.write_table(table, tmp_path / "a.parquet")
    check_columns(tmp_path / "a.parquet", Columns("m", "a.b"))
    frames = read_rows(open_dataset([tmp_path / "a.parquet"], Columns("m", "a.b")), np.arange(2))
    assert [row["dataset_source"] for frame in frames for row in frame.to_dicts()] == ["x", "y"]
    parquet = pq.ParquetFile(tmp_path / "a.parquet")
    assert [leaf_columns(parquet, name) for name in ("a", "a.b", "m")] == [range(2), range(2, 3), range(3, 5)]


def test_leaves_of_nested_types_are_counted(tmp_path: Path) -> None:
    kinds = [
        pa.map_(pa.string(), pa.struct([("x", pa.int8()), ("y", pa.list_(pa.int8()))])),
        pa.dictionary(pa.int32(), pa.string()),
        pa.list_(pa.int8(), 2),
        pa.uuid(),
        pa.null(),
    ]
    table = pa.table([pa.array([None], kind) for kind in kinds], names=list("abcde"))
    pq.write_table(table, tmp_path / "a.parquet")
    parquet = pq.ParquetFile(tmp_path / "a.parquet")
    ends = [leaf_columns(parquet, name).stop for name in "abcde"]
    assert ends == [3, 4, 5, 6, 7]
    assert parquet.metadata.num_columns == 7


def test_columns_twice_that_are_not_read_do_no_harm(tokenizer_only: Path, tmp_path: Path) -> None:
    table = pa.table(
        [pa.array([chat("q", "a")], MESSAGE), *[pa.array(["s"])] * 3], names=["messages", "s", "again", "again"]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    frames = read_rows(open_dataset([tmp_path / "a.parquet"], Columns("messages", "s")), np.arange(1))
    assert [row["dataset_source"] for frame in frames for row in frame.to_dicts()] == ["s"]
    options = Options(dataset=(str(tmp_path / "a.parquet"),), model=str(tokenizer_only), engine="hash", max_length=64)
    options = replace(options, source_column="dataset_source")
    with pytest.raises(UsageError, match=r"no column 'dataset_source' \(--source-column\)"):
        make_config(options, [])
    with pytest.raises(UsageError, match="it has 2 columns named 'again'; rename all but one"):
        check_columns(tmp_path / "a.parquet", Columns("messages", "again"))


def test_one_column_cannot_be_both(tmp_path: Path) -> None:
    parquet, jsonl, _ = written(tmp_path, "m", "s", "o")
    with pytest.raises(UsageError, match=r"a\.jsonl: --messages-column and --source-column are both 'm'; name two"):
        check_columns(jsonl, Columns("m", "m"))
    with pytest.raises(UsageError, match=r"a\.parquet: --messages-column and --source-column are both 'm'; name two"):
        check_columns(parquet, Columns("m", "m"))


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(UsageError, match=r"--source-column 'a\\udcff': not UTF-8"):
        check_columns(tmp_path / "a.jsonl", Columns("messages", "a\udcff"))


def test_columns_that_differ_by_case_are_two(tmp_path: Path) -> None:
    for path in written(tmp_path, "Text", "text", "TEXT")[:2]:
        frames = read_rows(open_dataset([path], Columns("Text", "TEXT")), np.arange(3))
        assert [r["dataset_source"] for frame in frames for r in frame.to_dicts()] == ["other 0", "other 1", "other 2"]
