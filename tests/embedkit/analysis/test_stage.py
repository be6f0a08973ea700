"""`embedkit analyze`: its files, its page, and its errors."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.options import Options
from embedkit.analysis.stage import analyze
from embedkit.check.verify import verify
from embedkit.documents.codec import read
from embedkit.documents.schema import Success
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support.checkout import python_path
from tests.support.sklearn_pca import sklearn_pca

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)><a href='http://evil.example/'>b</a>{{ 7*7 }}"

NO_MAP = Options(map_rows=0, groups=0)
"""Without UMAP, which compiles for half a minute."""
LINK = r"#row=\d+|side_by_side\.html"


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.at = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.at = tag

    def handle_endtag(self, tag: str) -> None:
        self.at = ""

    def handle_data(self, data: str) -> None:
        if self.at not in ("script", "style"):
            self.text += data


def page_of(path: Path) -> tuple[str, Reader]:
    """The page before its own scripts, and the whole page as an HTML parser reads it."""
    page = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    reader.close()
    return page.partition('<script>"use strict";')[0], reader


@pytest.fixture(scope="module")
def analyzed(hash_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run that was analyzed. Read only."""
    run = RunFolder(tmp_path_factory.mktemp("analyzed") / "run")
    shutil.copytree(hash_run.path, run.path)
    options = ["--components", 4, "--extremes", 3, "--points", 500, "--umap", 0, "--groups", 0]
    done = embedkit("analyze", run.path, *options, new_interpreter=True)
    assert f"written: {run.analysis / 'index.html'}" in done.stdout
    assert "Length drives" in done.stdout
    assert "analyze moments (combined)" in done.stderr
    return run


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_files_hold_what_scikit_learn_finds_in_the_run(analyzed: RunFolder) -> None:
    from safetensors.numpy import load_file

    vectors = load_file(analyzed.view_matrix("combined"))["embeddings"].astype(np.float64)
    theirs = sklearn_pca(vectors, 4)
    ours = np.load(analyzed.analysis / "pca.npz")
    assert np.allclose(ours["explained_variance"], theirs.explained_variance_, rtol=1e-6)
    assert np.abs(ours["components"] - theirs.components_).max() < 1e-6
    scores = pl.read_parquet(analyzed.analysis / "pca.parquet")
    assert scores.height == len(vectors)
    assert np.allclose(scores.select("pc1", "pc2", "pc3", "pc4"), theirs.transform(vectors), atol=1e-5)
    ends = pl.read_parquet(analyzed.analysis / "pc_extremes.parquet")
    assert ends.height == 4 * 2 * 3
    assert ends.filter(pc=1, end="top", rank=1)["score"][0] == scores["pc1"].max()
    by_source = np.load(analyzed.analysis / "by_source.npz")
    assert by_source["sources"].tolist() == sorted(scores["dataset_source"].unique())
    assert by_source["count"].sum() == len(vectors)
    health = json.loads((analyzed.analysis / "health.json").read_bytes())
    assert health["rows"] == len(vectors)


def test_files_of_space_losses_and_findings(analyzed: RunFolder) -> None:
    folder = analyzed.analysis
    losses = pl.read_parquet(folder / "losses_by_source.parquet")
    success = read(analyzed.success, Success)
    assert dict(losses.select("dataset_source", "kept").iter_rows()) == {
        name: record.rows for name, record in success.sources.items()
    }
    health = json.loads((folder / "health.json").read_bytes())
    assert health["losses"]["dropped"] == losses["dropped"].sum() > 0
    assert health["unknown_tokens"]["share"] == 0
    space = json.loads((folder / "space.json").read_bytes())
    # The vectors of the hash engine are random: no direction counts more, and sources cannot be separated.
    assert space["spectrum"]["participation_ratio"] > 60
    assert abs(space["separability"]["accuracy"] - space["separability"]["chance"]) < 0.1
    tokens = pl.read_parquet(folder / "tokens_by_source.parquet")
    rows = pl.read_parquet(analyzed.metadata)
    of_source = rows.group_by("dataset_source").agg(pl.sum("num_tokens")).sort("dataset_source")
    assert tokens["tokens"].to_list() == of_source["num_tokens"].to_list()
    assert tokens["unknown_tokens"].to_list() == [0] * tokens.height
    findings = pl.read_parquet(folder / "findings.parquet")
    counts = json.loads((folder / "findings.json").read_bytes())
    assert findings["rank"].to_list() == list(range(1, findings.height + 1))
    assert set(findings["kind"]) <= {kind for kind, count in counts["counts"].items() if count}
    assert "unrelated_answers" in counts["left_out"]
    text = (folder / "findings.txt").read_text()
    assert all(reason in text for reason in findings["reason"])


def test_an_analysis_may_leave_findings_and_groups_out(hash_run: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(hash_run.path, run.path)
    found = analyze(run, replace(NO_MAP, duplicates=0, neighbors=0, findings=0))
    assert found.findings == ()
    names = set(files_of(run.analysis))
    assert not {name for name in names if name.startswith(("findings", "groups", "group_names", "tokens", "shared"))}
    assert json.loads((run.analysis / "space.json").read_bytes())["dimension"] is None
    assert "unknown_tokens" not in json.loads((run.analysis / "health.json").read_bytes())


def test_the_page_needs_nothing_else(analyzed: RunFolder) -> None:
    page, reader = page_of(analyzed.analysis / "index.html")
    fetching = {"src", "xlink:href", "srcset", "data", "action", "background", "poster"}
    for tag, attributes in reader.tags:
        assert not fetching & set(attributes), tag
        assert tag not in ("link", "iframe", "object", "embed", "img", "base")
        assert re.fullmatch(LINK, attributes.get("href") or "#row=0")
    assert not re.findall(r"https?:", page)
    head = page.partition("<title>")[0]
    assert "default-src 'none'; connect-src 'none'; script-src 'sha256-" in head
    assert "unsafe-eval" not in head


def test_the_page_has_facts_and_every_section(analyzed: RunFolder) -> None:
    page, reader = page_of(analyzed.analysis / "index.html")
    for said in ("9,000", "no_assistant", "hash 1, float32", "`embedkit verify run` reads every byte"):
        assert said in reader.text, said
    titles = [attributes["data-tab"] for tag, attributes in reader.tags if attributes.get("role") == "tab"]
    assert titles == [
        *("map", "Worth reading", "Duplicates and dropped rows"),
        *("Principal components", "Extremes", "Sources", "Health", "Neighbours"),
    ]
    sections = {*titles[1:], "Near-duplicates", "Dropped rows"} - {"Duplicates and dropped rows"}
    assert all(f"<h2>{title}</h2>" in page for title in sections)
    assert len(re.findall(r'class="figure"', page)) == 5
    lists = sum(1 for tag, _ in reader.tags if tag == "details")
    # facts, groups, charts, norms, losses, similar sources, neighbours, extremes
    assert lists == 1 + 1 + 1 + 1 + 1 + 1 + 1 + 4 * 2
    assert verify(analyzed).ok


def test_a_second_analysis_gives_the_same_bytes(analyzed: RunFolder, tmp_path: Path) -> None:
    """A second analysis gives the same bytes, and removes temporaries of a killed one."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(analyzed.path, run.path)
    before = files_of(run.analysis)
    (run.analysis / ".pca.npz.1-ab.tmp").write_bytes(b"of a killed one")
    analyze(run, replace(NO_MAP, components=4, extremes=3, points=500))
    assert files_of(run.analysis) == before
    assert not (run.path / "analysis.lease").exists()


def test_some_sources_have_their_own_folder(analyzed: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(analyzed.path, run.path)
    before = files_of(run.analysis)
    analyze(run, replace(NO_MAP, sources=("A/B", "source 3")))
    assert files_of(run.analysis) == before
    scores = pl.read_parquet(run.analysis / "only-a_b+source_3" / "pca.parquet")
    assert set(scores["dataset_source"]) == {"a/b", "source 3"}
    assert "of a/b, source 3" in page_of(run.analysis / "only-a_b+source_3" / "index.html")[1].text


@pytest.mark.slow
def test_think_and_response_share_a_basis(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """Think and response share a basis; with --texts none the texts come from the parts."""
    views = ["--view", "response", "--view", "think", "--texts", "none", "--shards", 1]
    embedkit("run", *hash_request(small_chats, tokenizer_only, tmp_path), *views)
    run = RunFolder(tmp_path / "run")
    analyze(run, replace(NO_MAP, extremes=2))
    metadata = pl.read_parquet(run.metadata)
    extracted = pl.read_parquet(run.extracted)
    ends = pl.read_parquet(run.analysis / "pc_extremes_think.parquet")
    assert ends["think_text"].str.len_chars().min() > 0  # a row without a text has no score
    for line in ends.iter_rows(named=True):
        row = extracted.row(by_predicate=pl.col("row") == line["row"], named=True)
        assert (line["think_text"], line["user_prompt"]) == (row["think_text"], row["user_prompt"])
        assert line["num_tokens"] == metadata["num_tokens_think"][line["id"]]
    rows = pl.read_parquet(run.analysis / "views.parquet")
    both = metadata.filter(~pl.col("empty_think") & ~pl.col("empty_response"))
    assert 0 < both.height < metadata.height
    assert rows["id"].to_list() == both["id"].to_list()
    from safetensors.numpy import load_file

    think, response = (load_file(run.view_matrix(view))["embeddings"] for view in ("think", "response"))
    cosine = (think * response).sum(axis=1)[both["id"].to_numpy()]
    assert np.allclose(rows["cosine"], cosine, atol=1e-5)
    basis = sklearn_pca(np.concatenate([v[both["id"]] for v in (think, response)]), 2)
    assert np.allclose(rows.select("think_pc1", "think_pc2"), basis.transform(think[both["id"]]), atol=1e-5)
    assert np.allclose(rows.select("response_pc1", "response_pc2"), basis.transform(response[both["id"]]), atol=1e-5)
    means = pl.read_parquet(run.analysis / "views_by_source.parquet")
    expected = rows.group_by("dataset_source").agg(pl.mean("cosine")).sort("dataset_source")
    assert means["mean"].to_list() == pytest.approx(expected["cosine"].to_list())
    assert "<h2>Think beside response</h2>" in page_of(run.analysis / "index.html")[0]
    refused = embedkit("analyze", run.path, "--view", "combined", check=False)
    assert refused.returncode == 2
    assert "--view combined: the run has think, response" in refused.stderr


def test_rows_with_one_of_the_two_texts_are_not_compared(tokenizer_only: Path, tmp_path: Path) -> None:
    answers = [f"<think>{i}</think>a {i}" for i in range(5)] + ["<think>only</think>", "only"]
    data = write_chats(tmp_path / "chats.parquet", [chat("p", answer) for answer in answers])
    views = ["--view", "response", "--view", "think", "--shards", 1]
    embedkit("run", *hash_request(data, tokenizer_only, tmp_path), *views)
    analyze(RunFolder(tmp_path / "run"), NO_MAP)
    rows = pl.read_parquet(tmp_path / "run" / "analysis" / "views.parquet")
    assert rows["id"].to_list() == [0, 1, 2, 3, 4]
    assert rows["cosine"].is_between(-1, 1).all()
    assert "5 rows have both texts, 2 do not" in page_of(tmp_path / "run" / "analysis" / "index.html")[1].text


@pytest.mark.parametrize(
    ("chats", "sources"),
    [
        ([chat("a", "b")], ["only"]),
        ([chat("same", "text")] * 5, ["s"] * 5),
        ([chat(f"{i}", NASTY) for i in range(5)], [NASTY, NASTY, "one", "<b>two</b>", "<b>two</b>"]),
    ],
    ids=["one row", "nothing varies", "tags in names and texts"],
)
def test_small_and_hostile_runs_have_a_page(
    chats: list[object], sources: list[str | None], tokenizer_only: Path, tmp_path: Path
) -> None:
    data = write_chats(tmp_path / "chats.parquet", chats, sources)
    embedkit("run", *hash_request(data, tokenizer_only, tmp_path, "run"), "--shards", 1)
    analyze(RunFolder(tmp_path / "run"), NO_MAP)
    body, reader = page_of(tmp_path / "run" / "analysis" / "index.html")
    assert {tag for tag, _ in reader.tags}.isdisjoint({"img", "link", "iframe"})
    assert all(re.fullmatch(LINK, attributes["href"] or "") for tag, attributes in reader.tags if tag == "a")
    figures = "".join(re.findall(r'<script type="application/json" id="figure.*?</script>', body))
    assert not re.findall(r"<script>alert", body)
    assert not re.findall(r"\\u003c(?:a |img|b\\u003e|/script)", figures)  # plotly would make tags of them
    if len(set(map(str, chats))) == 1:
        assert "nothing varies among them" in reader.text


def test_pairs_that_were_planted_are_listed_with_their_texts(tokenizer_only: Path, tmp_path: Path) -> None:
    chats = [chat(f"prompt {i % 9}", f"answer {i % 9}") for i in range(12)]  # hash vectors: the same for the same text
    sources = [*["one"] * 9, "two", "two", NASTY]
    data = write_chats(tmp_path / "chats.parquet", chats, sources)
    embedkit("run", *hash_request(data, tokenizer_only, tmp_path, "run"), "--shards", 1)
    run = RunFolder(tmp_path / "run")
    analyze(run, replace(NO_MAP, duplicates=0.99))
    pairs = pl.read_parquet(run.analysis / "near_duplicates.parquet")
    assert pairs.select("id_a", "id_b").rows() == [(0, 9), (1, 10), (2, 11)]
    counted = pl.read_parquet(run.analysis / "near_duplicates_by_source.parquet")
    assert set(counted.rows()) == {("one", "two", 2), (NASTY, "one", 1)}
    near = json.loads((run.analysis / "near.json").read_bytes())
    assert near["near_duplicates"]["total"] == 3
    levels = pl.read_parquet(run.analysis / "near_duplicate_levels.parquet")
    assert levels.rows() == [(0.99, 3, 6, 2, 9, None, 0), (0.995, 3, 6, 2, 9, None, 0), (0.999, 3, 6, 2, 9, None, 0)]
    assert near["near_duplicate_levels"] == levels.to_dicts()
    assert near["neighbors"]["sampled"] == 12
    body, reader = page_of(run.analysis / "index.html")
    assert 'id="pairs"' in body
    assert "Pairs with a cosine of 0.99 or more, by source" in reader.text
    analyze(run, replace(NO_MAP, duplicates=0))
    body, reader = page_of(run.analysis / "index.html")
    assert 'id="pairs"' not in body
    assert "`embedkit analyze run --duplicates 0.95` searches for them" in reader.text


@pytest.mark.slow
def test_the_map_has_every_row_with_a_text_and_the_same_bytes_again(hash_run: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(hash_run.path, run.path)
    analyze(run, Options(map_rows=300, groups=0))
    before = files_of(run.analysis)
    rows = pl.read_parquet(run.analysis / "map.parquet")
    assert rows["id"].to_list() == pl.read_parquet(run.analysis / "pca.parquet")["id"].to_list()
    assert rows.filter(~pl.col("placed")).height == pytest.approx(300, abs=20)
    assert np.isfinite(rows.select("x", "y").to_numpy()).all()
    page, _ = page_of(run.analysis / "index.html")
    assert '"map":{"notes":["UMAP is fitted on ' in page
    assert "other rows joined the map after that" in page
    assert 'id="data-0-placed"' in (run.analysis / "index.html").read_text()
    analyze(run, Options(map_rows=300, groups=0))
    assert files_of(run.analysis) == before


def test_what_cannot_be_analyzed_is_refused(prepared_run: RunFolder, hash_run: RunFolder) -> None:
    refused = embedkit("analyze", prepared_run.path, check=False)
    assert refused.returncode == 1
    assert "the run is not merged; to finish it: " in refused.stderr
    for wrong, said in (("nosuch", "no source has that in its name; there are: a/b, "), ("a,,b", "parts of names")):
        refused = embedkit("analyze", hash_run.path, "--sources", wrong, check=False)
        assert refused.returncode == 2
        assert said in refused.stderr
    assert not hash_run.analysis.exists()


@pytest.mark.parametrize("damage", ["by_source", "matrix", "missing", "short"])
def test_damaged_vectors_are_named(damaged_run: RunFolder, damage: str) -> None:
    path = damaged_run.view_matrix("combined") if damage == "matrix" else damaged_run.source_matrix("a_b", "combined")
    if damage == "missing":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.seek(-400, 2)
            file.truncate() if damage == "short" else file.write(b"\xff" * 4)
    refused = embedkit("analyze", damaged_run.path, check=False)
    assert refused.returncode == 1
    said = refused.stderr.splitlines()[-1]
    assert said.startswith(f"embedkit: {path}: ")
    assert {"missing": "missing, though", "short": "not a whole matrix"}.get(damage, "not finite; run") in said
    assert not (damaged_run.analysis / "index.html").exists()


def test_a_missing_library_is_named_before_any_work(hash_run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "plotly").mkdir()
    (tmp_path / "plotly" / "__init__.py").write_text("raise ModuleNotFoundError('hidden', name='plotly')")
    refused = embedkit("analyze", hash_run.path, check=False, **python_path(tmp_path))
    assert refused.returncode == 2
    assert refused.stderr.startswith("embedkit: plotly.graph_objects cannot be imported here (hidden); install")
    assert not hash_run.analysis.exists()
