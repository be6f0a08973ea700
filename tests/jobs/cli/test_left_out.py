"""Commands that make a run list what they leave out of its data set."""

from pathlib import Path

import pytest

from tests.conftest import chat, embedkit, write_chats


@pytest.mark.parametrize("command", ["fetch", "prepare", "run"])
def test_what_is_left_out_is_printed(command: str, tokenizer_only: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write_chats(tmp_path / "d" / "a.parquet", [chat("q", "a")])
    for name in ("b.jsonl.lz4", "c.parquet.tmp"):
        (tmp_path / "d" / name).touch()
    model = ("--model", tokenizer_only, "--engine", "hash", "--max-length", 64, "--full")
    done = embedkit(command, "--dataset", tmp_path / "d", *model, "--output-dir", tmp_path, "--run-name", "run")
    assert f"WARNING --dataset {tmp_path}/d: 1 not read: 1 .jsonl.lz4 (b.jsonl.lz4). Only .parquet, " in done.stderr
    assert f"WARNING --dataset {tmp_path}/d: 1 skipped: names that begin with" in done.stderr
    again = embedkit(command, "--resume", "--output-dir", tmp_path, "--run-name", "run")
    assert "not read" not in again.stderr
