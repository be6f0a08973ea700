"""Reasoning that is elsewhere than between <think> and </think>, from the command line to the parts."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
from embedkit.run import RunFolder
from tests.conftest import embedkit, hash_request, write_chats

HARMONY = "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>final<|message|>answer"
ANSWERS: list[dict[str, Any]] = [
    {"content": "345", "reasoning_content": "15*20+15*3 = 345"},
    {"content": "360", "reasoning": "15*24 = 360"},
    {"content": "375", "thinking": [{"type": "thinking", "thinking": "15*25"}, {"type": "text", "text": "= 375"}]},
    {"content": "", "reasoning_content": "15*26 = 390"},
    {"content": "Okay, 4.\n</think>\n\nThe answer is 4."},
    {"content": "<think>\nstill thinking"},
    {"content": "<thinking>t</thinking>answer"},
    {"content": HARMONY},
    {"content": "<THINK>t</THINK>answer"},
    {"content": "[THINK]t[/THINK]answer"},
    {"content": "before <think>both</think> after", "reasoning": "both"},
]
ANY = [
    ("15*20+15*3 = 345", "345"),
    ("15*24 = 360", "360"),
    ("15*25\n\n= 375", "375"),
    ("15*26 = 390", ""),
    ("Okay, 4.", "The answer is 4."),
    ("still thinking", ""),
    ("t", "answer"),
    ("t", "answer"),
    ("t", "answer"),
    ("t", "answer"),
    ("both", "after"),
]


def texts(run: RunFolder) -> list[tuple[str, str]]:
    return pl.read_parquet(run.extracted).select("think_text", "response_text").rows()


def write_answers(path: Path) -> Path:
    return write_chats(path, [[{"role": "user", "content": "q"}, {"role": "assistant"} | a] for a in ANSWERS])


def test_reasoning_is_found_wherever_it_is(tokenizer_only: Path, tmp_path: Path) -> None:
    embedkit("prepare", *hash_request(write_answers(tmp_path / "a.jsonl"), tokenizer_only, tmp_path))
    assert texts(RunFolder(tmp_path / "run")) == ANY


def test_classic_has_the_rule_of_the_replaced_scripts(tokenizer_only: Path, tmp_path: Path) -> None:
    asked = hash_request(write_answers(tmp_path / "a.jsonl"), tokenizer_only, tmp_path)
    embedkit("prepare", *asked, "--think-format", "classic")
    run = RunFolder(tmp_path / "run")
    whole = [("", answer["content"]) for answer in ANSWERS if answer["content"]]
    assert texts(run) == [*whole[:-1], ("both", "after")]
    assert pl.read_parquet(run.dropped).select("row", "reason").rows() == [(3, "no_assistant")]


def test_a_run_of_an_earlier_version_keeps_the_classic_rule(tokenizer_only: Path, tmp_path: Path) -> None:
    asked = [*hash_request(write_answers(tmp_path / "a.jsonl"), tokenizer_only, tmp_path), "--shards", 1]
    embedkit("prepare", *asked, "--think-format", "classic")
    run = RunFolder(tmp_path / "run")
    # Its request has no such field, as in runs of earlier versions.
    assert "think_format" not in json.loads(run.config.read_bytes())["request"]
    embedkit("run", *asked, "--resume")
    assert read(run.config, RunConfig).request.think_format == "classic"
    assert len(texts(run)) == len(ANSWERS) - 1
    refused = embedkit("run", *asked, "--resume", "--think-format", "any", code=2)
    assert "think_format  classic  ->  any" in refused.stderr
    assert "all is well" in embedkit("verify", run.path).stdout


@pytest.mark.parametrize("value", [{"text": "t"}, [{"image": "t"}]])
def test_reasoning_that_has_no_text_is_named(value: object, tokenizer_only: Path, tmp_path: Path) -> None:
    """It is not left out in silence."""
    chat = [{"role": "assistant", "content": "a", "reasoning": value}]
    data = write_chats(tmp_path / "a.jsonl", [chat, chat, chat])
    refused = embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path), code=1)
    assert "3 of 3 rows (100 %) were dropped: 3 not_a_chat" in refused.stderr
    assert "no chat (a " in refused.stderr
    assert " reasoning " in refused.stderr
    embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path, "classic"), "--think-format", "classic")
