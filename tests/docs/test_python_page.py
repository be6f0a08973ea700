"""The examples that read a run in Python work as they are on the pages."""

import re
from pathlib import Path

import polars as pl
import pytest

from embedkit.run import RunFolder
from tests.conftest import ROOT

BLOCKS = [
    (name, block)
    for name in ("README.md", "docs/files.md", "docs/python.md")
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S)
]


@pytest.fixture
def folder(hash_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the runs of the pages, which is one run by two names."""
    (tmp_path / "output").mkdir()
    for name in ("first", "demo"):
        (tmp_path / "output" / name).symlink_to(hash_run.path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_page_has_its_examples() -> None:
    assert [name for name, _ in BLOCKS] == ["README.md", "docs/files.md", *["docs/python.md"] * 4]


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_an_example_runs_as_it_is(page: str, block: str, folder: Path) -> None:
    exec(compile(block, page, "exec"), {})


def test_nearest_rows_begin_with_the_row_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows 5 to 7 are dropped, so row 17 has id 14."""
    names: dict[str, object] = {}
    exec(BLOCKS[3][1], names)
    assert int(names["nearest"][0]) == 14  # type: ignore[index]
    assert "│ 14" in capsys.readouterr().out


def test_the_written_table_has_texts_and_vectors(folder: Path, hash_run: RunFolder) -> None:
    exec(BLOCKS[5][1], {})
    table = pl.read_parquet(folder / "long.parquet")
    assert table.height == 100
    assert table["num_tokens"].is_sorted(descending=True)
    prompts = pl.read_parquet(hash_run.metadata).join(table.select("id", "text"), on="id")
    assert prompts.select(pl.col("text").str.starts_with(pl.col("user_prompt").str.strip_chars()).all()).item()
