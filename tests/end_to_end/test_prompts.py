"""Prompts and prefixes of rows and queries, from the command line to the vectors."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.documents.codec import digest, read
from embedkit.documents.schema import RunConfig
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.end_to_end.test_whole_run import matrix_of

PROMPTS = {"prompts": {"query": "Query: ", "document": "Passage of text: "}, "default_prompt_name": "document"}
CHATS = [chat("What is a river?", "Water that flows."), chat("two", "words"), chat("", "<think>so</think>")]
TEXTS = ["What is a river?\n\n\n\nWater that flows.", "two\n\n\n\nwords", "so"]


def with_prompts(model: Path, folder: Path) -> Path:
    """A copy of a model's folder that has prompts."""
    shutil.copytree(model, folder)
    (folder / "config_sentence_transformers.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    return folder


def counts(run: RunFolder) -> list[int]:
    counted: list[int] = pl.read_parquet(run.extracted)["num_tokens"].to_list()
    return counted


def tokens_of(model: Path, texts: list[str]) -> list[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    return [len(tokenizer.encode(text).ids) for text in texts]


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        ((), "Passage of text: "),
        (("--prompt", "query"), "Query: "),
        (("--prefix", r"Instruct: read\nText: "), "Instruct: read\nText: "),
        (("--prefix", ""), ""),
    ],
)
def test_the_prefix_is_counted_and_recorded(
    options: tuple[str, ...], prefix: str, tokenizer_only: Path, tmp_path: Path
) -> None:
    model = with_prompts(tokenizer_only, tmp_path / "model")
    asked = hash_request(write_chats(tmp_path / "a.jsonl", CHATS), model, tmp_path)
    done = embedkit("prepare", *asked, *options)
    run = RunFolder(tmp_path / "run")
    assert read(run.config, RunConfig).request.prefix == prefix
    assert counts(run) == tokens_of(model, [prefix + text for text in TEXTS])
    assert ("default prompt 'document': 'Passage of text: '" in done.stderr) == (not options)
    # The texts themselves are stored as they are.
    assert pl.read_parquet(run.extracted)["user_prompt"].to_list() == ["What is a river?", "two", ""]


def test_a_resumed_run_keeps_its_prefix(tokenizer_only: Path, tmp_path: Path) -> None:
    model = with_prompts(tokenizer_only, tmp_path / "model")
    asked = [*hash_request(write_chats(tmp_path / "a.jsonl", CHATS), model, tmp_path), "--shards", 1]
    embedkit("prepare", *asked, "--prompt", "query")
    finished = embedkit("run", *asked, "--resume")
    assert "before each row       'Query: '" in finished.stdout
    assert "default prompt" not in finished.stderr
    refused = embedkit("run", *asked, "--resume", "--prefix", "Text: ", code=2)
    assert "prefix  Query:   ->  Text: " in refused.stderr
    assert (
        "--prompt and --prefix exclude"
        in embedkit("run", *asked, "--resume", "--prompt", "x", "--prefix", "y", code=2).stderr
    )
    assert "all is well" in embedkit("verify", RunFolder(tmp_path / "run").path).stdout


def test_a_request_without_prefix_keeps_its_digest(tokenizer_only: Path, tmp_path: Path) -> None:
    """Runs of earlier versions are continued: their requests have no such field."""
    embedkit("prepare", *hash_request(write_chats(tmp_path / "a.jsonl", CHATS), tokenizer_only, tmp_path))
    path = RunFolder(tmp_path / "run").config
    assert "prefix" not in json.loads(path.read_bytes())["request"]
    assert (
        digest(read(path, RunConfig).request) == json.loads((tmp_path / "run/plan.json").read_bytes())["request_sha256"]
    )


def test_a_query_begins_like_the_rows_or_as_typed(tokenizer_only: Path, tmp_path: Path) -> None:
    model = with_prompts(tokenizer_only, tmp_path / "model")
    embedkit("run", *hash_request(write_chats(tmp_path / "a.jsonl", CHATS), model, tmp_path), "--shards", 1)
    path = tmp_path / "run"
    for options, text in (
        ((), "Passage of text: two\n\n\n\nwords"),
        (("--prompt", "query"), "Query: two\n\n\n\nwords"),
        (("--prefix", ""), "two\n\n\n\nwords"),
    ):
        found = json.loads(embedkit("search", path, " two\n\n\n\nwords ", *options, "-k", 1, "--json").stdout)
        assert found["query"]["text"] == text
        assert found["query"]["tokens"] == tokens_of(model, [text])[0]
        assert (found["neighbors"][0]["cosine"] > 0.999_99) == (not options)
    assert "--prompt passage: " in embedkit("search", path, "x", "--prompt", "passage", code=2).stderr


@pytest.mark.slow
def test_rows_and_queries_as_in_sentence_transformers(minilm: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = with_prompts(minilm, tmp_path / "model")
    data = write_chats(tmp_path / "a.jsonl", CHATS)
    asked = ["--dataset", data, "--model", model, "--engine", "transformers", "--device", "cpu", "--full"]
    theirs = SentenceTransformer(str(model), device="cpu")
    ours = {}
    for name, options, right in (
        ("default", (), theirs.encode(TEXTS)),
        ("query", ("--prompt", "query"), theirs.encode_query(TEXTS)),
    ):
        embedkit("run", *asked, *options, "--output-dir", tmp_path, "--run-name", name)
        ours[name] = matrix_of(RunFolder(tmp_path / name).view_matrix("combined"))
        np.testing.assert_allclose(ours[name], right, atol=1e-5)
    # The default prompt is that of a document.
    embedkit("prepare", *asked, "--prompt", "document", "--output-dir", tmp_path, "--run-name", "document")
    same = [read(RunFolder(tmp_path / name).config, RunConfig).request for name in ("default", "document")]
    assert same[0] == same[1]
    np.testing.assert_allclose(ours["default"], theirs.encode_document(TEXTS), atol=1e-5)
    found = json.loads(embedkit("search", tmp_path / "default", "a river", "--prompt", "query", "--json").stdout)
    cosines = theirs.encode_query(["a river"]) @ theirs.encode_document(TEXTS).T
    assert [row["cosine"] for row in found["neighbors"]] == pytest.approx(sorted(cosines[0], reverse=True), abs=1e-5)
