"""The benchmarks' inputs and figures: fabricated runs are whole, corpora are long, missed targets are marked."""

import importlib
import pkgutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import benchmarks
from benchmarks import corpus, measure, page
from benchmarks.bench_plan import heaviest
from benchmarks.fabricate import Shape, fabricate, lengths_of
from benchmarks.measure import Figure, keep, timed
from benchmarks.replaced import filter_rows, merge
from embedkit.check.verify import verify
from tests.conftest import chat, embedkit, write_chats

TEXT = "The river runs past the old mill and the stone bridge. " * 2000


def test_every_module_can_be_imported() -> None:
    """`make bench` is typed rarely: a name that has moved would stay unnoticed."""
    found = [module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")]
    for name in found:
        importlib.import_module(name)
    assert {"benchmarks.__main__", "benchmarks.gpu.__main__"} < set(found)


def test_fabricated_run_merges_as_the_replaced_way_does(tmp_path: Path) -> None:
    """A fabricated run merges and verifies, and the replaced way makes the same vectors."""
    run = fabricate(tmp_path / "run", Shape(rows=9_000, sources=5, text_bytes=300, shards=4, dim=64), TEXT)
    embedkit("merge", run.path)
    report = verify(run)
    assert report.ok, report.problems
    assert (report.stage, report.rows, report.shards) == ("done", 9_000, 4)
    merge(run.path, tmp_path / "replaced")
    assert (tmp_path / "replaced" / "all.safetensors").stat().st_size == pytest.approx(
        run.view_matrix("combined").stat().st_size, 0.01
    )
    theirs = pl.read_parquet(tmp_path / "replaced" / "metadata.parquet", columns=["row", "response_text"])
    assert theirs.equals(pl.read_parquet(run.metadata, columns=["row", "response_text"]))


def test_a_run_of_more_tokens_than_32_bits_hold_verifies(tmp_path: Path) -> None:
    shape = Shape(rows=240_000, sources=2, text_bytes=0, shards=2, dim=2)
    assert lengths_of(shape.rows).sum() > 2**31
    run = fabricate(tmp_path / "run", shape, TEXT)
    report = verify(run)
    assert report.ok, report.problems


def test_the_replaced_filter_keeps_what_fits(tmp_path: Path, tiny_qwen: Path) -> None:
    data = write_chats(tmp_path / "chats.parquet", [chat("a", "<think>b</think>c"), chat("a", "word " * 40_000)])
    took = filter_rows(data, tiny_qwen / "tokenizer.json", 2, bound=False)
    assert (took["rows"], took["encoded"]) == (1, 2)
    assert filter_rows(data, tiny_qwen / "tokenizer.json", 2, bound=True)["encoded"] == 1


def test_long_rows_are_long_and_whole(tmp_path: Path, small_chats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    monkeypatch.setattr(corpus, "demo_texts", lambda: TEXT * 3)
    path = corpus.long_rows(2_000_000)
    assert corpus.text_bytes(path) >= 2_000_000
    shortest = min(sum(len(m["content"]) for m in messages) for messages in pl.read_parquet(path)["messages"].to_list())
    assert shortest > 2048 * 3.5
    assert sorted(pl.read_parquet(path).columns) == sorted(pl.read_parquet(small_chats).columns)


def test_fabricated_lengths_are_a_reasoning_data_sets() -> None:
    lengths = lengths_of(200_000)
    assert lengths.mean() == pytest.approx(9_700, rel=0.03)
    assert lengths.max() == 32768


def test_balance_is_the_heaviest_over_the_mean() -> None:
    assert heaviest(np.array([1.0, 1.0, 2.0, 4.0]), [0, 2, 3, 4]) == pytest.approx(1.5)


def test_a_command_is_timed_with_the_memory_of_what_it_starts() -> None:
    inner = "x = b'x' * 200_000_000; import time; time.sleep(0.5)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}]); print('{{\"a\": 1}}')"
    took = timed([measure.PYTHON, "-c", outer])
    assert took.peak_bytes > 190e6
    assert took.wall >= 0.5
    assert took.json == {"a": 1}
    with pytest.raises(RuntimeError, match="ended with 3"):
        timed([measure.PYTHON, "-c", "raise SystemExit(3)"])


def test_a_figure_that_misses_stays_on_the_page_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    figures = [
        Figure(work="quick work", value=0.8, target=0.7, measured="8 s", rival="cp: 10 s"),
        Figure(
            work="slow work", value=3.0, unit="s", target=2.0, at_most=True, measured="3 s", rival="none", note="why"
        ),
    ]
    keep("merge", figures, "a command")
    page.write_page()
    text = (tmp_path / "page.md").read_text()
    assert "| quick work | 0.8x | at least 0.7 | 8 s | cp: 10 s |" in text
    assert "| slow work | **3 s, missed** | at most 2 | 3 s | none |" in text
    assert "Missed: slow work. why" in text
