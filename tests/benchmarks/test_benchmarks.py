"""The benchmarks' inputs and figures: fabricated runs are whole, corpora are long, missed targets are marked."""

import importlib
import pkgutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import benchmarks
from benchmarks import bench_atlas, corpus, measure, page
from benchmarks.bench_findings import class_tfidf
from benchmarks.bench_plan import heaviest
from benchmarks.fabricate import Shape, fabricate, fabricate_at_scale, lengths_of
from benchmarks.measure import Figure, keep, timed
from benchmarks.replaced import filter_rows, merge
from embedkit.analysis.merged import open_merged
from embedkit.check.verify import verify
from embedkit.documents import Dtype, Layout
from tests.conftest import chat, embedkit, write_chats

VARIED_TEXT = " ".join(f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(600))
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


def test_a_fabricated_run_has_its_planted_groups(tmp_path: Path) -> None:
    """It merges and verifies. The nearest row of nearly every row is of its subgroup, whose words its text has."""
    shape = Shape(rows=3_000, sources=5, text_bytes=50, shards=2, dim=64, groups=3)
    run = fabricate(tmp_path / "run", shape, VARIED_TEXT)
    embedkit("merge", run.path)
    report = verify(run)
    assert report.ok, report.problems
    planted = shape.planted
    assert planted is not None
    merged = open_merged(run)
    vectors = merged.vectors(merged.ids).astype(np.float64)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    assert np.mean(planted.subgroup == planted.subgroup[cosines.argmax(axis=1)]) > 0.95
    words = planted.words(VARIED_TEXT)
    texts = merged.texts(merged.ids.tolist())["response_text"]
    assert all(text.startswith(f"{words[at]} ") for text, at in zip(texts, planted.subgroup, strict=True))
    codes = merged.rows["source"].to_numpy()  # sources 0 to 4, of which each has a subgroup of its own
    assert 0.85 < np.mean(codes == planted.subgroup) < 0.95


def test_the_rival_names_clusters_by_words_of_their_own() -> None:
    """c-TF-IDF by hand: two words of each cluster are its own, and "the" is in both, so that its factor is least."""
    texts = ["the river the mill", "river mill", "the lamp engine", "engine lamp the"]
    names = class_tfidf(texts, np.array([0, 0, 1, 1]))
    assert [set(words[:2]) for words in names] == [{"river", "mill"}, {"lamp", "engine"}]
    assert [words[2] for words in names] == ["the", "the"]


def test_a_run_of_more_tokens_than_32_bits_hold_verifies(tmp_path: Path) -> None:
    shape = Shape(rows=240_000, sources=2, text_bytes=0, shards=2, dim=2)
    assert lengths_of(shape.rows).sum() > 2**31
    run = fabricate(tmp_path / "run", shape, TEXT)
    report = verify(run)
    assert report.ok, report.problems


@pytest.mark.parametrize(("layout", "store"), [("merged", "float32"), ("sharded", "float32"), ("sharded", "bfloat16")])
def test_a_run_at_scale_has_its_vectors_once_on_disk(tmp_path: Path, layout: Layout, store: Dtype) -> None:
    """Its three shards share a file, it merges and verifies, and it is found to be damaged under each name."""
    shape = Shape(
        rows=9_000, sources=5, text_bytes=0, shards=3, dim=64, layout=layout, store=store, texts="none", tokens=500.0
    )
    run = fabricate_at_scale(tmp_path / "run", shape)
    files = sorted(run.embeddings.glob("shards/*/*.safetensors"))
    assert [file.stat().st_nlink for file in files] == [3, 3, 3]
    assert {file.stat().st_ino for file in files} == {files[0].stat().st_ino}
    assert files[0].stat().st_size == pytest.approx(3_000 * 64 * {"float32": 4, "bfloat16": 2}[store], abs=200)
    assert run.config.read_text().count('"store"') == (store != "float32")  # a default is not written
    embedkit("merge", run.path)
    report = verify(run)
    assert report.ok, report.problems
    assert (report.stage, report.rows, report.shards) == ("done", 9_000, 3)
    with files[0].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    report = verify(run)
    assert len([problem for problem in report.problems if "differ" in problem.what]) >= 3, report.problems


def test_a_run_at_scale_has_shards_of_equal_rows(tmp_path: Path) -> None:
    shape = Shape(rows=10, sources=1, text_bytes=0, shards=3)
    with pytest.raises(ValueError, match="10 rows are not 3 shards of equal rows"):
        fabricate_at_scale(tmp_path / "run", shape)


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


def test_figures_without_a_rival_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row per run and a column per step; the others follow in a table of their own."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    figures = [
        *(
            Figure(work=f"{rows} rows: {step}", value=1.0, unit="s", measured=f"{rows}{step}", rival="")
            for rows in (1, 10)
            for step in ("plan", "merge")
        ),
        Figure(work="10 rows: verify", value=1.0, unit="s", measured="last", rival=""),
        Figure(work="merge, 10 rows", value=2.0, measured="1 s", rival="sha256: 2 s"),
    ]
    keep("scale", figures, "a command")
    page.write_page()
    lines = (tmp_path / "page.md").read_text().splitlines()
    first = lines.index("| run | plan | merge | verify |")
    assert lines[first + 1 : first + 4] == [
        "| --- | --- | --- | --- |",
        "| 1 rows | 1plan | 1merge |  |",
        "| 10 rows | 10plan | 10merge | last |",
    ]
    assert "| merge, 10 rows | 2x |  | 1 s | sha256: 2 s |" in lines


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


@pytest.mark.slow
def test_the_measured_page_has_what_a_page_has() -> None:
    html = bench_atlas.our_page(*bench_atlas.made(600))
    for block in ("0-mapx", "0-mapx-fine", "0-row", "0-pc2", "0-snippets", "texts"):
        assert f'id="data-{block}"' in html
    assert '"rows":600' in html
