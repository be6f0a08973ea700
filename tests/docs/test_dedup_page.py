"""The examples of docs/dedup.md work as they are on the page, and the check of receipts finds false ones."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.dedup import DedupOptions, dedup
from embedkit.run import RunFolder
from tests.conftest import ROOT
from tests.support.merged_runs import run_of

PAGE = (ROOT / "docs" / "dedup.md").read_text(encoding="utf-8")
APPLY, CHECK = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the page with a decision about 90 rows in 30 groups, two of each group near each other."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.standard_normal((30, 24)), 3, axis=0)
    vectors[::3] += 0.6 * rng.standard_normal((30, 24))
    vectors += 0.01 * rng.standard_normal(vectors.shape)
    run = run_of(tmp_path, vectors.astype(np.float32), [f"s{i % 4}" for i in range(90)])
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "demo").symlink_to(run.path)
    pl.DataFrame({"text": [f"text {i}" for i in range(1000)]}).write_parquet(tmp_path / "chats.parquet")
    monkeypatch.chdir(tmp_path)
    return dedup(RunFolder(run.path), DedupOptions(threshold=0.98)).folder


def test_the_receipts_are_checked_by_the_script(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(CHECK, "dedup.md", "exec"), {})
    assert capsys.readouterr().out == "30 removed rows are near rows that stay; 60 stay\n"


@pytest.mark.parametrize("damage", ["cosine", "pair_id", "kept_id", "id"])
def test_a_false_receipt_fails_the_script(folder: Path, damage: str) -> None:
    path = folder / "removed.parquet"
    removed = pl.read_parquet(path)
    false = pl.lit(0.99) if damage == "cosine" else pl.col("id").last().cast(pl.Int64)
    first = pl.int_range(pl.len()) == 0
    removed.with_columns(pl.when(first).then(false).otherwise(damage).alias(damage)).write_parquet(path)
    with pytest.raises(AssertionError):
        exec(compile(CHECK, "dedup.md", "exec"), {})


def test_the_decision_is_applied_to_the_data_set(folder: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(APPLY, "dedup.md", "exec"), names)
    kept = pl.read_parquet(folder / "kept.parquet")
    assert names["rows"]["text"] == [f"text {row}" for row in kept["row"]]  # type: ignore[index]


def test_every_file_is_on_the_page(folder: Path) -> None:
    named = set(re.findall(r"^\| `([a-z_]+\.[a-z]+)` \|", PAGE, re.M))
    assert named == {path.name for path in folder.iterdir()}
    removed = next(line for line in PAGE.splitlines() if line.startswith("| `removed.parquet`"))
    for column in pl.read_parquet(folder / "removed.parquet").columns[5:]:
        assert column in removed
