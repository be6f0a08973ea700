"""Parquet files whose layout must not cost memory or time: long texts stored once, tiny row groups, huge ones."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit.data import Columns, open_dataset, read_rows
from embedkit.data.parquet import MOST_BYTES, index_file, open_parquet
from embedkit.data.parquet_pages import largest_row_bytes
from embedkit.errors import EmbedkitError
from tests.conftest import chat

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema([("messages", MESSAGES), ("dataset_source", pa.string())])
COLUMNS = Columns("messages", "dataset_source")


def table(chats: list[Any]) -> pa.Table:
    return pa.table(
        {"messages": pa.array(chats, MESSAGES), "dataset_source": pa.array(["s"] * len(chats), pa.string())}
    )


@pytest.mark.parametrize("where", ["messages", "text"])
def test_a_text_shared_by_many_rows_is_not_read_at_once(where: str, tmp_path: Path) -> None:
    """1,000 rows of 600 kB are 600 MB, and 20 kB on disk."""
    long = "x" * 600_000
    path = tmp_path / "a.parquet"
    rows = table([chat("q", long)] * 1000)
    pq.write_table(rows if where == "messages" else pa.table({"text": [long] * 1000}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    columns = COLUMNS if where == "messages" else Columns(None, None, texts=("text",))
    before = pa.default_memory_pool().max_memory()
    sizes = [frame.estimated_size() for frame in read_rows(open_dataset([path], columns), np.arange(1000))]
    assert sum(sizes) >= 600_000_000
    assert max(sizes) < 40 << 20
    assert pa.default_memory_pool().max_memory() - before < 3 * MOST_BYTES


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_dictionary_tells_the_longest_row(compression: str, version: str, tmp_path: Path) -> None:
    """Each text has a length of four bytes before it (parquet-format, "Plain")."""
    path = tmp_path / "a.parquet"
    texts = pa.table(
        {"a": ["x" * 5000, "y"] * 100, "b": [[t, t] for t in ["x" * 300] * 200], "c": [str(i) for i in range(200)]}
    )
    pq.write_table(
        texts, path, compression=compression, data_page_version=version, use_dictionary=["a", "b.list.element"]
    )
    group = open_parquet(path).metadata.row_group(0)
    assert largest_row_bytes(path, group, [0]) == 5000 + 1 + 2 * 4
    assert largest_row_bytes(path, group, [1]) == 2 * (300 + 4)
    assert largest_row_bytes(path, group, [2]) == 0
    assert largest_row_bytes(path, group, [0, 1]) == 5009 + 608


def test_row_groups_of_one_row_are_read_together(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for i in range(1000):
            writer.write_table(table([chat("q", f"a {i}")]) if i % 10 else table([]))
    blocks = index_file(path, 5).blocks
    assert [(block.first_row, block.rows) for block in blocks] == [(5, 900)]
    wanted = np.array([0, 1, 450, 899])
    rows = [row for frame in read_rows(open_dataset([path], COLUMNS), wanted) for row in frame.to_dicts()]
    assert [row["row"] for row in rows] == wanted.tolist()
    assert [row["messages"][1]["content"] for row in rows] == ["a 1", "a 2", "a 501", "a 999"]


def test_large_row_groups_stay_blocks_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for size in (10, 20, 4090, 3000, 2000, 5):
            writer.write_table(table([chat("q", "a")] * size), row_group_size=size)
    blocks = index_file(path, 0).blocks
    assert [(block.first_row, block.rows, block.index, block.count) for block in blocks] == [
        (0, 30, 0, 2),
        (30, 4090, 2, 1),
        (4120, 3000, 3, 1),
        (7120, 2005, 4, 2),
    ]


@pytest.mark.parametrize("size", [7, 50, 1000])
def test_categories_are_read_from_row_groups_of_any_size(size: int, tmp_path: Path) -> None:
    """pyarrow ends a batch of categories with its row group."""
    chats = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a {i}"}] for i in range(200)]
    sources = [f"s {i // 20}" for i in range(200)]
    roles = pl.List(pl.Struct({"role": pl.Enum(["user", "assistant"]), "content": pl.String}))
    frame = pl.DataFrame(
        {"messages": chats, "dataset_source": sources}, {"messages": roles, "dataset_source": pl.Categorical}
    )
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=size)
    dataset = open_dataset([tmp_path / "a.parquet"], COLUMNS)
    for wanted in (np.arange(200), np.array([3, 60, 61, 199])):
        rows = [row for part in read_rows(dataset, wanted) for row in part.to_dicts()]
        assert [row["row"] for row in rows] == wanted.tolist()
        assert [row["messages"][1]["content"] for row in rows] == [f"a {i}" for i in wanted]
        assert [row["dataset_source"] for row in rows] == [sources[i] for i in wanted]


def test_damage_in_joined_row_groups_names_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table([chat("q", f"{i} " * 50) for i in range(100)]), path, row_group_size=50)
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)
    path.write_bytes(data)
    with pytest.raises(EmbedkitError, match=r"a\.parquet: row groups 0 to 1 cannot be read"):
        list(read_rows(open_dataset([path], COLUMNS), np.arange(100)))
