"""The benchmarks' inputs and figures: fabricated runs are whole, corpora are long, missed targets are marked."""

import importlib
import pkgutil
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import benchmarks
from benchmarks import bench_atlas, corpus, measure, page
from benchmarks.bench_findings import class_tfidf
from benchmarks.bench_plan import heaviest
from benchmarks.fabricate import Shape, fabricate, fabricate_at_scale, lengths_of
from benchmarks.measure import Figure, Took, keep, timed
from benchmarks.replaced import filter_rows, merge
from benchmarks.rounds import in_turns, of_rounds, quotients, shown, worse
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


def test_a_figure_that_was_kept_before_keeps_its_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One size of a benchmark may be measured alone; the others are as old as they were."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.json")
    old = Figure(work="old", value=1.0, measured="", rival="", day="2026-01-02", machine="another")
    keep("scale", [old, Figure(work="new", value=1.0, measured="", rival="")], "a command")
    kept, new = measure.read_results()["scale"]
    assert kept == old
    assert (new.day, new.command) == (date.today().isoformat(), "a command")


def test_growth_has_the_exponent_from_size_to_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work by 4 for rows by 16 has the exponent 0.5. A size that was not measured leaves a gap."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    took = {("plan", 10): 1.0, ("plan", 160): 4.0, ("merge", 160): 8.0}
    figures = [
        Figure(work=f"{rows} rows: {step}", value=9.0, unit="s", measured="9 s", rival="", rows=rows, cpu=cpu)
        for (step, rows), cpu in took.items()
    ]
    keep("scale", figures, "a command")
    page.write_page()
    text = (tmp_path / "page.md").read_text()
    assert "| plan | 1.0 | 4.0, exponent 0.50 |\n| merge |  | 8.0 |" in text


def test_sides_take_turns_and_show_their_spread() -> None:
    """Each round runs every side once. A ratio is of one round, and its figure is their median."""
    order: list[str] = []

    def side(name: str, walls: list[float]) -> Took:
        order.append(name)
        return Took(walls[order.count(name) - 1], cpu=2.0, peak_bytes=2**29, output=f'{{"rows": {len(order)}}}')

    ours, theirs = in_turns(lambda: side("ours", [1.0, 2.0, 4.0]), lambda: side("theirs", [3.0, 3.0, 3.0]))
    assert order == ["ours", "theirs"] * 3
    assert ours.cell == "2.0 s (1.0 to 4.0), 2 s of CPU, 0.50 GiB"
    assert ours.of_output("rows") == (1, 3, 5)
    figure = of_rounds(quotients(theirs.walls, ours.walls), work="a", measured="", rival="")
    assert (figure.value, figure.rounds) == (1.5, (3.0, 1.5, 0.75))
    assert shown(figure) == "1.5x (0.75 to 3)"


def test_worse_is_what_no_round_explains() -> None:
    """The best new round is worse than the worst kept one. Without noise, or on another machine, nothing is said."""

    def made(work: str, *rounds: float, unit: str = "x", machine: str = "here", at_most: bool = False) -> Figure:
        return of_rounds(rounds, work=work, unit=unit, machine=machine, at_most=at_most, measured="", rival="")

    kept = [
        *(made("slower", 0.8, 0.9), made("noisy", 0.5, 0.9), made("once", 0.9), made("better", 0.5, 0.6)),
        *(made("seconds", 4.0, 5.0, unit="s", at_most=True), made("there", 4.0, 5.0, unit="s", at_most=True)),
    ]
    new = [
        *(made("slower", 0.7, 0.79), made("noisy", 0.3, 0.6), made("once", 0.1), made("better", 0.8, 0.9)),
        *(made("seconds", 5.1, 6.0, unit="s", at_most=True), made("new", 0.1, 0.1)),
        made("there", 5.1, 6.0, unit="s", machine="there", at_most=True),
    ]
    assert [line.partition(":")[0] for line in worse(kept, new)] == ["slower", "seconds"]


@pytest.mark.slow
def test_the_measured_page_has_what_a_page_has() -> None:
    html = bench_atlas.our_page(*bench_atlas.made(600))
    for block in ("0-mapx", "0-mapx-fine", "0-row", "0-pc2", "0-snippets", "texts"):
        assert f'id="data-{block}"' in html
    assert '"rows":600' in html
