"""Columns that come from paths: partitions as Hive writes them, and the source named after a file."""

from pathlib import Path
from urllib.parse import quote

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.columns import Columns
from embedkit.data.path_columns import HIVE_NULL, columns_from_paths, partitions, source_name
from embedkit.errors import UsageError
from tests.support.fuzzing import tries

CHAT = '{"messages": []}\n'


def made(folder: Path, *names: str, text: str = CHAT) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return [folder / name for name in names]


def from_paths(paths: list[Path], columns: Columns, name_source: bool = False) -> list[dict[str, str]]:
    return list(columns_from_paths(paths, columns, repo=None, name_source=name_source))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("d/lang=en/year=2024/a.parquet", {"lang": "en", "year": "2024"}),
        ("d/lang=/a.parquet", {"lang": ""}),
        (f"d/lang={HIVE_NULL}/a.parquet", {"lang": ""}),
        ("d/lang=a%2Fb%3Dc%20%25/a.parquet", {"lang": "a/b=c %"}),
        ("d/lang=a=b/a.parquet", {"lang": "a=b"}),
        ("d/la%20ng=é/a.parquet", {"la ng": "é"}),
        ("d/lang=%FF/a.parquet", {"lang": "%FF"}),
        ("d/lang=100%/a.parquet", {"lang": "100%"}),
        ("lang=en/d/lang=fr/a.parquet", {"lang": "fr"}),
        ("d/a.parquet", {}),
        ("d/lang=en.parquet", {}),
    ],
)
def test_partitions_of_a_path(path: str, found: dict[str, str]) -> None:
    assert partitions(Path(path)) == found


@given(
    st.dictionaries(st.text("abAB_ é.-", min_size=1), st.text(min_size=1).filter(lambda v: v != HIVE_NULL), max_size=3)
)
@tries(100)
def test_any_partition_values_survive(values: dict[str, str]) -> None:
    folders = [f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in values.items()]
    assert partitions(Path("/data", *folders, "a.parquet")) == values


def test_partitions_are_those_of_pyarrow(tmp_path: Path) -> None:
    """It writes them, with values that need encoding, and a null."""
    langs = ["en", "a/b", "x=y", "50%", "é ☃", "a:b", "#?&", None]
    frame = pl.DataFrame({"lang": langs, "text": [f"of {lang}" for lang in langs]})
    pq.write_to_dataset(frame.to_arrow(), str(tmp_path), partition_cols=["lang"])
    paths = sorted(tmp_path.rglob("*.parquet"))
    found = from_paths(paths, Columns(None, "lang", ("text",)))
    texts = [pl.read_parquet(path, hive_partitioning=False)["text"][0] for path in paths]
    assert {text: row["lang"] for text, row in zip(texts, found, strict=True)} == {
        f"of {lang}": lang or "" for lang in langs
    }


def test_a_text_column_may_be_a_partition(tmp_path: Path) -> None:
    paths = made(tmp_path, "lang=en/a.jsonl", "lang=fr/a.jsonl", text='{"text": "t"}\n')
    columns = Columns(None, "dataset_source", ("text", "lang"))
    assert from_paths(paths, columns) == [{"lang": "en"}, {"lang": "fr"}]
    named = from_paths(paths, columns, name_source=True)
    assert named == [{"dataset_source": "a", "lang": "en"}, {"dataset_source": "a", "lang": "fr"}]


def test_a_partition_that_some_paths_lack_is_refused(tmp_path: Path) -> None:
    paths = made(tmp_path, "a.jsonl", "lang=en/b.jsonl")
    for order in (paths, paths[::-1]):
        with pytest.raises(UsageError, match=r"a\.jsonl: no folder lang=\.\.\. .*, which .*lang=en/b\.jsonl has"):
            from_paths(order, Columns(source="lang"))
        with pytest.raises(UsageError, match=r"[ab]\.jsonl: no folder dataset_source=\.\.\."):
            from_paths([*order, *made(tmp_path, "dataset_source=x/c.jsonl")], Columns(), name_source=True)


def test_a_column_that_some_files_have_stays_theirs(tmp_path: Path) -> None:
    """Those that lack it are refused later: to name their source after the file would hide that."""
    lacks = made(tmp_path, "a.jsonl", "dataset_source=p/c.jsonl")
    has = made(tmp_path, "b.jsonl", text='{"messages": [], "dataset_source": "s"}\n')
    for paths in (lacks + has, has + lacks):
        assert from_paths(paths, Columns(), name_source=True) == []


def test_files_without_rows_decide_nothing(tmp_path: Path) -> None:
    empty = made(tmp_path, "0-empty.jsonl", "lang=en/empty.jsonl", text="")
    assert from_paths(empty, Columns(), name_source=True) == []
    named = from_paths(empty + made(tmp_path, "tales.jsonl"), Columns(), name_source=True)
    assert [row["dataset_source"] for row in named] == ["0-empty", "empty", "tales"]


def test_the_source_is_named_after_the_repository(tmp_path: Path) -> None:
    paths = made(tmp_path, "snapshots/0123abcd/train.jsonl")
    found = columns_from_paths(paths, Columns(), repo="lab/chats", name_source=True)
    assert found == ({"dataset_source": "chats"},)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("tales.jsonl", "tales"),
        ("tales.jsonl.gz", "tales"),
        ("tales.v2.csv", "tales.v2"),
        ("tales-00000-of-00400.parquet", "tales"),
        ("tales_1of3.jsonl", "tales"),
        ("tales-00000-of-00001-abcdef0123456789.parquet", "tales"),
        ("tales_0001.jsonl", "tales_0001"),
        ("gpt-4-0613.jsonl", "gpt-4-0613"),
        ("math-20240131.jsonl", "math-20240131"),
        ("tales_00001.jsonl", "tales"),
        ("tales-12345.csv", "tales"),
        ("tales-2024.jsonl", "tales-2024"),
        ("2024.jsonl", "2024"),
        ("tales-2024-00001.jsonl", "tales-2024"),
        ("tales-facade.jsonl", "tales-facade"),
        ("00000.parquet", "folder"),
        ("000_00000.parquet", "folder"),
        ("1.jsonl", "folder"),
        ("chunk_1.jsonl", "folder"),
        ("Data.jsonl", "folder"),
        ("data-00000-of-00002.arrow", "folder"),
        ("part-00000.parquet", "folder"),
        ("part-00000-9a8b7c6d-1234-5678-9abc-def012345678-c000.snappy.parquet", "folder"),
        ("part-00000-tid-1234-9a8b7c6d-1234-5678-9abc-def012345678-12-1-c000.gz.parquet", "folder"),
    ],
)
def test_a_source_is_named_after_the_file(name: str, source: str) -> None:
    assert source_name(Path("/data/folder/data/part-00001") / name) == source
    assert source_name(Path("/") / name) == (source if source != "folder" else source_name(Path("/data/1") / name))
