"""A tokenizer.json that truncates and pads: long rows keep all their tokens, from prepare to verify."""

import json
from pathlib import Path

import polars as pl
import pytest

from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, write_chats

LONG = {70: 1_990, 150: 6_890, 290: 22_890}
"""Words of the long rows, by row."""


@pytest.mark.slow
@pytest.mark.parametrize("library", ["fastokens", "hf"])
def test_long_rows_are_not_cut_by_tokenizer_json(library: str, tokenizer_only: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    whole = json.loads((tokenizer_only / "tokenizer.json").read_text())
    whole["truncation"] = {"direction": "Right", "max_length": 512, "strategy": "LongestFirst", "stride": 0}
    whole["padding"] = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
    whole["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer.json").write_text(json.dumps(whole))
    texts = [" ".join(["river"] * LONG[i]) if i in LONG else f"short row {i}" for i in range(300)]
    data = write_chats(tmp_path / "a.jsonl", [chat(text, "ok") for text in texts])
    plain = Tokenizer.from_file(str(tokenizer_only / "tokenizer.json"))
    counts = [len(plain.encode(f"{text}\n\n\n\nok").ids) for text in texts]
    assert [counts[row] > 512 for row in LONG] == [True] * 3

    limit = counts[150]
    request = ["--dataset", data, "--model", model, "--engine", "hash", "--full", "--max-length", limit]
    environment = {"EMBEDKIT_TOKENIZER": library}
    embedkit("run", *request, "--shards", 2, "--output-dir", tmp_path, "--run-name", "run", **environment)
    run = RunFolder(tmp_path / "run")
    kept = pl.read_parquet(run.extracted)
    assert dict(zip(kept["row"], kept["num_tokens"], strict=True)) == {i: n for i, n in enumerate(counts) if i != 290}
    dropped = pl.read_parquet(run.dropped)
    assert dropped.select("row", "reason", "token_count").rows() == [(290, "too_long", counts[290])]
    embedkit("verify", run.path, **environment)
