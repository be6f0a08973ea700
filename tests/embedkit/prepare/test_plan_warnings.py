"""What a plan says about odd rows, and what the first rows are said to be."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.conftest import chat, embedkit, hash_request


def rows_of(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "odd.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def sharegpt(i: int, answer: str = "a") -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": f"q {i}"}, {"from": "gpt", "value": answer}]}


def test_many_dropped_rows_and_an_empty_view_are_explained(tokenizer_only: Path, tmp_path: Path) -> None:
    image = {"conversations": [{"from": "human", "value": [{"type": "image_url"}]}, {"from": "gpt", "value": "a"}]}
    other = {"conversations": [{"speaker": "x", "text": "y"}]}
    data = rows_of(tmp_path, [*map(sharegpt, range(39)), image, *[other] * 10])
    made = embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path), "--view", "combined", "--view", "think")
    for line in (
        "warning: 10 of 50 rows (20 %) were dropped: 10 not_a_chat",
        "warning: view think: only 0 of 40 rows have a text",
        "warning: keys of the first messages: from, speaker, text, value; roles of all messages: assistant 40, human ",
        "warning: parts of messages that are no text were left out: image 1",
    ):
        assert line in made.stdout
    formats = "ShareGPT (from, value) in 40, no chat (a message with the keys speaker, text) in 10"
    assert f"Column 'conversations': {formats} of the first 50 rows" in made.stderr
    assert "Source, from the paths of the files: odd" in made.stderr
    assert r"Row 0, as it will be embedded (8 characters): 'q 0\n\n\n\na'" in made.stderr
    dropped = pl.read_parquet(tmp_path / "run" / "dropped_rows.parquet")
    assert dropped["row"].to_list() == list(range(40, 50))
    assert set(dropped["reason"]) == {"not_a_chat"}


def test_nothing_is_said_of_rows_that_are_as_usual(tokenizer_only: Path, tmp_path: Path) -> None:
    """A tenth of dropped rows is still usual."""
    data = rows_of(tmp_path, [*map(sharegpt, range(9)), {"conversations": []}])
    made = embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path))
    assert "warning" not in made.stdout
    assert json.loads((tmp_path / "run" / "plan.json").read_text()).keys().isdisjoint({"warnings"})


def test_rows_that_are_all_dropped_are_explained(tokenizer_only: Path, tmp_path: Path) -> None:
    data = rows_of(tmp_path, [{"messages": [{"role": "agent", "content": "x"}]}] * 3)
    failed = embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path), code=1)
    assert "all 3 rows were dropped; see " in failed.stderr
    assert "3 of 3 rows (100 %) were dropped: 3 no_assistant" in failed.stderr
    assert "keys of the first messages: content, role; roles of all messages: agent 3" in failed.stderr
    assert "None of these rows has a text to embed" in failed.stderr


def test_a_format_that_is_typed_is_the_only_one(tokenizer_only: Path, tmp_path: Path) -> None:
    mixed = [{"messages": chat(f"q {i}", "a")} for i in range(9)] + [{"messages": sharegpt(9)["conversations"]}]
    request = hash_request(rows_of(tmp_path, mixed), tokenizer_only, tmp_path)
    assert "10 of 10 rows kept" in embedkit("prepare", *request).stdout
    assert "9 of 10 rows kept" in embedkit("prepare", *request, "--format", "openai", "--overwrite").stdout
    refused = embedkit("prepare", *request, "--format", "auto", "--resume", code=2)
    assert "chat_format  openai  ->  auto" in refused.stderr


@pytest.mark.parametrize("content", ['"caf\xe9"', r'"\ud800"'])
@pytest.mark.parametrize("line", [0, 150])
def test_text_that_is_not_unicode_is_named_at_any_line(
    content: str, line: int, tokenizer_only: Path, tmp_path: Path
) -> None:
    """The run that --overwrite would replace is deleted only when the new one is made."""
    rows = [json.dumps({"messages": chat(f"q {i}", "a")}).encode() for i in range(200)]
    rows[line] = b'{"messages": [{"role": "assistant", "content": %s}]}' % content.encode("latin-1")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(rows))
    failed = embedkit("prepare", *hash_request(path, tokenizer_only, tmp_path), code=1)
    assert f"a.jsonl: line {line + 1}" in failed.stderr
    assert "not a readable row" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_unread_column_may_have_any_bytes(tokenizer_only: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"chat": %s, "note": "caf\xe9"}\n{"chat": null, "n": NaN}' % json.dumps(chat("q", "a")).encode())
    made = embedkit("prepare", *hash_request(path, tokenizer_only, tmp_path), "--shards", 1)
    assert "1 of 2 rows kept" in made.stdout
    assert "Column 'chat': OpenAI (role, content) in 1, no messages in 1 of the first 2 rows" in made.stderr
