"""Runs of plain text, and runs with views of the user: each matrix is that of the texts made by hand."""

import gzip
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embedkit.check.verify import verify
from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig, Success
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request
from tests.end_to_end.test_whole_run import matrix_of
from tests.support.naive import hash_vectors

ROWS: list[dict[str, Any]] = [
    {
        "title": None if i % 9 == 4 else f"title {i}",
        "body": " \n" if i % 7 == 3 else f"river {i} π stone ",
        "meta": {"lang": "de" if i % 2 else "en"},
        "n 1": i,
        "dataset_source": "ab"[i % 2],
    }
    for i in range(40)
]
PLAIN: list[object] = ["--text-column", "title", "--text-column", "body"]
TAGGED = r"tagged=[{meta.lang}]\n{{{title}}} {n 1}"
VIEWS: list[object] = ["--view", TAGGED, "--view", "combined", "--view", "body_only={body}"]


def joined(row: dict[str, Any]) -> str:
    return "\n\n".join(text for text in (row["title"] or "", row["body"]) if text.strip())


def tagged(row: dict[str, Any]) -> str:
    return f"[{row['meta']['lang']}]\n{{{row['title'] or ''}}} {row['n 1']}"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pl.DataFrame(rows).write_parquet(path, row_group_size=10)
    return path


@pytest.fixture(scope="module")
def plain(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of plain text with two views of the user, from JSONL. Read only."""
    folder = tmp_path_factory.mktemp("plain")
    data = write_rows(folder / "d.jsonl", ROWS)
    embedkit("run", *hash_request(data, tokenizer_only, folder), *PLAIN, *VIEWS)
    return RunFolder(folder / "run")


def check_matrices(run: RunFolder, model: Path, texts: dict[str, list[str]]) -> None:
    """Every view's matrix is that of its texts, whole and by source, and its columns are theirs."""
    metadata = pl.read_parquet(run.metadata)
    for view, wanted in texts.items():
        vectors = hash_vectors(wanted, model)
        assert np.array_equal(matrix_of(run.view_matrix(view)), vectors)
        for folder, rows in metadata.group_by("dataset_source"):
            assert np.array_equal(matrix_of(run.source_matrix(str(folder[0]), view)), vectors[rows["id"].to_numpy()])
        if view != "combined":
            assert metadata[f"empty_{view}"].to_list() == [not text for text in wanted]


def test_plain_text_with_views_from_jsonl(plain: RunFolder, tokenizer_only: Path) -> None:
    texts = {
        "combined": [joined(row).strip() for row in ROWS],
        "tagged": [tagged(row) for row in ROWS],
        "body_only": [row["body"].strip() for row in ROWS],
    }
    check_matrices(plain, tokenizer_only, texts)
    metadata = pl.read_parquet(plain.metadata)
    assert metadata["user_prompt"].to_list() == [joined(row) for row in ROWS]
    assert metadata["column.body"].to_list() == [row["body"] for row in ROWS]
    assert metadata["column.n 1"].to_list() == [str(row["n 1"]) for row in ROWS]
    assert metadata["num_turns"].to_list() == [0] * 40
    assert read(plain.config, RunConfig).request.views == ("combined", "tagged", "body_only")
    assert read(plain.success, Success).empty == {"combined": 1, "tagged": 0, "body_only": 6}
    assert verify(plain, reembed=40, seed=1).ok


@pytest.mark.parametrize("texts", ["all", "none"])
def test_plain_text_with_a_template_from_parquet(texts: str, tokenizer_only: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.parquet", ROWS)
    options = ("--text-column", "body", "--view", r"combined={title}\n\n{body}", "--view", "x={title}{meta.lang}")
    embedkit("run", *hash_request(data, tokenizer_only, tmp_path), *options, "--texts", texts)
    run = RunFolder(tmp_path / "run")
    combined = [f"{row['title'] or ''}\n\n{row['body']}".strip() for row in ROWS]
    own = [(row["title"] or "") + row["meta"]["lang"] for row in ROWS]
    check_matrices(run, tokenizer_only, {"combined": combined, "x": own})
    stored = pl.read_parquet(run.extracted)
    assert stored["user_prompt"].to_list() == combined
    kept = pl.read_parquet(run.metadata).columns
    assert ("user_prompt" in kept, "column.title" in kept) == (texts == "all",) * 2
    assert embedkit("search", run.path, "river", "--view", "x", "-k", 1).stdout.count("view x: ") == 1
    assert verify(run, reembed=40, seed=1).ok


def test_views_of_chats_with_columns(tokenizer_only: Path, tmp_path: Path) -> None:
    chats = [chat(f"question {i}", f"<think>thought {i}</think>answer {i}" if i % 2 else f"a {i}") for i in range(20)]
    rows = [{"messages": c, "dataset_source": "s", "title": f"t{i}"} for i, c in enumerate(chats)]
    data = write_rows(tmp_path / "d.jsonl", rows)
    views = ("--view", "own={title} | {response_text}", "--view", "thoughts={think_text}", "--view", "response")
    embedkit("run", *hash_request(data, tokenizer_only, tmp_path), *views)
    run = RunFolder(tmp_path / "run")
    answers = [f"answer {i}" if i % 2 else f"a {i}" for i in range(20)]
    texts = {
        "response": answers,
        "own": [f"t{i} | {answer}" for i, answer in enumerate(answers)],
        "thoughts": [f"thought {i}" if i % 2 else "" for i in range(20)],
    }
    check_matrices(run, tokenizer_only, texts)
    assert read(run.config, RunConfig).request.views == ("response", "own", "thoughts")
    assert verify(run, reembed=20, seed=1).ok


def test_a_row_whose_views_are_all_empty_is_dropped(tokenizer_only: Path, tmp_path: Path) -> None:
    rows = [{"a": "x", "b": "y"}, {"a": " ", "b": None}, {"a": "", "b": "y"}, {"a": ["x"], "b": "y"}]
    data = write_rows(tmp_path / "d.jsonl", rows)
    request = hash_request(data, tokenizer_only, tmp_path)
    embedkit("prepare", *request, "--text-column", "a", "--view", "combined", "--view", "b={b}", "--shards", 1)
    run = RunFolder(tmp_path / "run")
    assert pl.read_parquet(run.dropped).select("row", "reason").rows() == [(1, "empty"), (3, "not_text")]
    assert pl.read_parquet(run.extracted).select("row", "num_tokens", "empty_b").rows() == [
        (0, 2, False),
        (2, 0, False),
    ]


def test_search_and_neighbors_show_the_text_of_the_view(plain: RunFolder) -> None:
    found = embedkit("search", plain.path, "title 5", "-k", 2).stdout
    assert found.count("     text: ") == 2
    assert "prompt" not in found
    found = embedkit("neighbors", plain.path, "--id", 5, "--view", "tagged", "-k", 1).stdout
    assert found.startswith("nearest to id 5\nview tagged: [de] {title 5} 5\n")
    printed = json.loads(embedkit("neighbors", plain.path, "--id", 5, "--view", "tagged", "--json").stdout)
    assert printed["of"]["view_text"] == "[de]\n{title 5} 5"
    assert "view_text" not in embedkit("search", plain.path, "title", "--json").stdout
    refused = embedkit("search", plain.path, "title", "--view", "think", code=2)
    assert "--view think: the run has combined, tagged, body_only" in refused.stderr


@pytest.mark.slow
def test_the_page_shows_plain_text_and_views(plain: RunFolder) -> None:
    embedkit("analyze", plain.path, "--umap", 0, "--groups", 0)
    page = plain.analysis_page.read_text(encoding="utf-8")
    for view in ("combined", "tagged", "body_only"):
        assert view in page
    start = page.index("data-texts")
    block = page[page.index(">", start) + 1 : page.index("<", start)]
    texts = json.loads(gzip.decompress(b64decode(block)))
    assert list(texts["columns"]) == ["text", "view tagged", "view body_only"]
    assert texts["columns"]["view tagged"] == [tagged(row) for row in ROWS]
    ends = (plain.analysis / "pc_extremes_tagged.txt").read_text(encoding="utf-8")
    assert "view tagged: [" in ends
    assert "turns" not in ends


def test_a_run_of_plain_text_is_resumed_with_its_settings(plain: RunFolder, tokenizer_only: Path) -> None:
    request = hash_request(plain.path.parent / "d.jsonl", tokenizer_only, plain.path.parent)
    resume = ("--resume", "--run-name", "run", "--output-dir", plain.path.parent)
    embedkit("run", *resume)
    embedkit("run", *request, "--resume", *PLAIN, *VIEWS)
    embedkit("run", *resume, "--view", "tagged", "--view", "combined", "--view", "body_only")  # as the run has them
    refused = embedkit("run", *resume, "--view", "combined", "--view", "tagged={title}", code=2).stderr
    assert r"view tagged     [{meta.lang}]\n{{{title}}} {n 1}  ->  {title}" in refused
    assert "view body_only  {body}  ->  -" in refused
    refused = embedkit("run", *resume, "--text-column", "body", code=2).stderr
    assert "text_columns  ('title', 'body')  ->  ('body',)" in refused
    refused = embedkit("run", *resume, "--messages-column", "body", code=2).stderr
    assert "text_columns     ('title', 'body')  ->  ()" in refused


THERE = "body, dataset_source, meta, n 1, title"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*PLAIN, "--view", "think"), "--view think: plain text has none (--text-column); only chats have"),
        ((*PLAIN, "--messages-column", "m"), "--text-column and --messages-column exclude each other"),
        ((*PLAIN, "--think-format", "any"), "--think-format: plain text has no reasoning (--text-column)"),
        (("--text-column", "no"), f"d.jsonl: no column 'no' (--text-column or a view); there are: {THERE}"),
        ((*PLAIN, "--view", "x={no}"), f"d.jsonl: no column 'no' (--text-column or a view); there are: {THERE}"),
        ((*PLAIN, "--view", "x={title}", "--view", "x={body}"), "--view x has two meanings; choose another name"),
        ((*PLAIN, "--view", "x={title"), "--view x={title: it has a { without a }; write {{ for a brace"),
        ((*PLAIN, "--view", "x=title"), "--view x=title: it names no column, so all rows would have the same text"),
        ((*PLAIN, "--view", "x"), "--view x: there are combined, think, response; write one of your own as x=TEMPLATE"),
    ],
)
def test_refusals(options: tuple[object, ...], message: str, tokenizer_only: Path, tmp_path: Path) -> None:
    """Nothing is made of a run that is refused."""
    data = write_rows(tmp_path / "d.jsonl", ROWS)
    refused = embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path), *options, code=2)
    assert message in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_view_has_the_vectors_of_its_text_alone(minilm: Path, tmp_path: Path) -> None:
    """With a real engine, and for chats: embedding the view's text as plain text gives the same vectors."""
    rows = [
        {"messages": chat(f"river {i}", "stone " * (i % 5 + 1)), "dataset_source": "s", "title": f"title {i}"}
        for i in range(12)
    ]
    chats = write_rows(tmp_path / "chats.jsonl", rows)
    texts = write_rows(
        tmp_path / "texts.parquet",
        [
            {"text": f"title {i}: river {i} / {'stone ' * (i % 5 + 1)}".strip(), "dataset_source": "s"}
            for i in range(12)
        ],
    )
    model = ("--model", minilm, "--engine", "transformers", "--device", "cpu", "--full", "--output-dir", tmp_path)
    view = "own={title}: {user_prompt} / {response_text}"
    embedkit("run", "--dataset", chats, *model, "--run-name", "a", "--view", view)
    embedkit("run", "--dataset", texts, *model, "--run-name", "b", "--text-column", "text")
    one, other = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    own, alone = matrix_of(one.view_matrix("own")), matrix_of(other.view_matrix("combined"))
    assert own.shape == alone.shape == (12, 384)
    assert np.abs(own - alone).max() <= 1e-6
    assert verify(one, reembed=12, seed=1).ok
