"""Rows that the replaced scripts could read have the texts that the scripts gave, in every file format.

The first user's data set has messages of role and content, with the roles system, user and assistant, and reasoning
between <think> and </think>; further fields of its messages are null.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data import Columns, choose_columns, open_dataset, read_rows
from embedkit.data.hub import DataSource
from embedkit.prepare.extract import extract, view_text
from tests.support.fuzzing import tries
from tests.support.reference import extract_row

word = st.sampled_from(["a", "é🙂", " ", "\n", "<b>", "think", "\u2028", '"', "\\"])
content = st.none() | st.lists(word, max_size=5).map("".join)
thinking = st.builds("<think>{}</think>{}".format, content, content)
role = st.sampled_from(["system", "user", "user", "assistant", "tool"])
message = st.fixed_dictionaries({"role": role, "content": content | thinking})
chats = st.lists(st.lists(message, min_size=1, max_size=5), min_size=1, max_size=6)


def texts_of(path: Path, reasoning: bool) -> list[dict[str, Any]]:
    """What prepare extracts with --think-format any or classic, and no other option."""
    columns, from_path = choose_columns(DataSource([path]), Columns(None, None, (), "auto", reasoning), None)
    dataset = open_dataset([path], columns, from_path)
    frames = [
        extract(frame, "any" if reasoning else "classic", "auto")[0].with_columns(view_text("combined"))
        for frame in read_rows(dataset, np.arange(dataset.rows))
    ]
    return [{k: v for k, v in row.items() if k != "dataset_source"} for row in pl.concat(frames).to_dicts()]


@pytest.mark.parametrize("reasoning", [False, True])
@given(rows=chats)
@tries(40)
def test_plain_chats_have_the_texts_of_the_scripts(reasoning: bool, rows: list[Any], tmp_path: Path) -> None:
    expected = [{"row": i} | texts for i, row in enumerate(rows) if (texts := extract_row(row, "classic")) is not None]
    named = [{"messages": row, "dataset_source": "s"} for row in rows]
    with_nulls = [
        {"messages": [m | {"function_calls": None, "functions": None} for m in row], "dataset_source": "s"}
        for row in rows
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, with_nulls)))
    (tmp_path / "a.json").write_text(json.dumps(named))
    pl.DataFrame(named).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(with_nulls).write_parquet(tmp_path / "b.parquet")
    for name in ("a.jsonl", "a.json", "a.parquet", "b.parquet"):
        assert texts_of(tmp_path / name, reasoning) == expected


def test_real_chats_have_the_texts_of_the_scripts(demo_chats: Path, tmp_path: Path) -> None:
    """Every hundredth of 118,165 real chats, with the default options and with --think-format classic."""
    rows = pl.read_parquet(demo_chats, columns=["messages", "dataset_source"]).gather_every(100)
    rows.write_parquet(tmp_path / "a.parquet")
    chats = rows["messages"].to_list()
    expected = [{"row": i} | texts for i, row in enumerate(chats) if (texts := extract_row(row, "classic")) is not None]
    assert len(expected) > 30
    assert texts_of(tmp_path / "a.parquet", True) == texts_of(tmp_path / "a.parquet", False) == expected
