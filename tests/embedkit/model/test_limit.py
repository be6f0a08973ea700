"""The limit of a model: from which file, and whether the network takes that many tokens and no more."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from embedkit.errors import UsageError
from embedkit.model import model_limit
from tests.conftest import ROOT, chat, embedkit, needs_vllm, write_chats
from tests.support.models import make_tokenizer

BERT = {"model_type": "bert", "max_position_embeddings": 512}
SENTENCE, TOKENIZER = "sentence_bert_config.json", "tokenizer_config.json"
NETWORK = "max_position_embeddings in config.json"
HUGE = 1000000000000000019884624838656
"""What tokenizers write for "no limit"."""


def make(folder: Path, **files: object) -> Path:
    """A folder with these JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize(
    ("files", "tokens", "source"),
    [
        ({"config": BERT}, 512, NETWORK),
        ({"config": {"model_type": "gpt2", "n_positions": 1024, "n_ctx": 1024}}, 1024, "n_ctx in config.json"),
        ({"config": {"model_type": "mpt", "max_seq_len": 2048}}, 2048, "max_seq_len in config.json"),
        ({"config": {"model_type": "chatglm", "seq_length": 32768}}, 32768, "seq_length in config.json"),
        (
            {"config": {"model_type": "nomic_bert", "n_positions": 8192, "max_trained_positions": 2048}},
            2048,
            "max_trained_positions in config.json",
        ),
        (
            {"config": {"text_config": BERT, "max_position_embeddings": 7}},
            512,
            NETWORK,
        ),
        ({"sentence_bert_config": {"max_seq_length": 256}}, 256, f"max_seq_length in {SENTENCE}"),
        ({"sentence_roberta_config": {"max_seq_length": 9}}, 9, "max_seq_length in sentence_roberta_config.json"),
        ({"tokenizer_config": {"model_max_length": 77}}, 77, f"model_max_length in {TOKENIZER}"),
        ({"config": BERT, "sentence_bert_config": {"max_seq_length": 256}}, 256, f"max_seq_length in {SENTENCE}"),
        (
            {"config": BERT, "sentence_bert_config": {"max_seq_length": 513}},
            512,
            NETWORK,
        ),
        ({"config": BERT, "tokenizer_config": {"model_max_length": 77}}, 77, f"model_max_length in {TOKENIZER}"),
        (
            {"config": BERT, "tokenizer_config": {"model_max_length": HUGE}},
            512,
            NETWORK,
        ),
        (
            {"sentence_bert_config": {"max_seq_length": 128}, "tokenizer_config": {"model_max_length": 77}},
            128,
            f"max_seq_length in {SENTENCE}",
        ),
        (
            {"sentence_bert_config": {"max_seq_length": None}, "tokenizer_config": {"model_max_length": 77}},
            77,
            f"model_max_length in {TOKENIZER}",
        ),
        (
            {"config": {"model_type": "t5", "n_positions": 512}, "sentence_bert_config": {"max_seq_length": 900}},
            900,
            f"max_seq_length in {SENTENCE}",
        ),
        (
            {"config": BERT | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}},
            512,
            NETWORK,
        ),
        (
            {"config": BERT | {"original_max_position_embeddings": 100, "rope_scaling": {"type": "longrope"}}},
            100,
            "original_max_position_embeddings in config.json",
        ),
        (
            {"config": BERT | {"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 90}}},
            90,
            "original_max_position_embeddings in config.json",
        ),
    ],
)
def test_the_limit_is_the_smallest_that_counts(files: dict[str, Any], tokens: int, source: str, tmp_path: Path) -> None:
    """One file suffices. sentence-transformers' own setting replaces the tokenizer's; neither raises the network's."""
    found = model_limit(make(tmp_path, **files))
    assert found is not None
    assert (found.tokens, found.source) == (tokens, source)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"config": {"model_type": "t5", "n_positions": 512}},
        {"config": {"model_type": "xlnet", "max_position_embeddings": -1}},
        {"tokenizer_config": {"model_max_length": HUGE}},
        {"tokenizer": {"truncation": {"max_length": 128}}},
    ],
)
def test_a_folder_may_know_no_limit(files: dict[str, Any], tmp_path: Path) -> None:
    """T5's positions are relative, and `truncation` in tokenizer.json is a setting of whoever saved it."""
    assert model_limit(make(tmp_path, **files)) is None


@pytest.mark.parametrize("value", ["512", True, [512]])
def test_a_limit_that_is_no_number_is_named(value: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        model_limit(make(tmp_path, config={"max_position_embeddings": value}))
    config = tmp_path / "config.json"
    assert str(error.value) == f"{config}: max_position_embeddings is {value!r}, not a number of tokens"


SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 34,
}
NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "roberta": ({}, 32),
    "xlm-roberta": ({}, 32),
    "xlm-roberta-xl": ({}, 32),
    "camembert": ({}, 32),
    "roberta-prelayernorm": ({}, 32),
    "data2vec-text": ({}, 32),
    "ibert": ({}, 32),
    "luke": ({"entity_vocab_size": 5, "entity_emb_size": 16}, 32),
    "longformer": ({"attention_window": 8}, 32),
    "xmod": ({"languages": ["en_XX"], "default_language": "en_XX"}, 32),
    "mpnet": ({}, 32),
    "bert": ({}, 34),
    "electra": ({"embedding_size": 16}, 34),
    "albert": ({"embedding_size": 16}, 34),
}


@pytest.mark.parametrize(("kind", "padding"), [*((kind, None) for kind in NETWORKS), ("roberta", 4), ("mpnet", 4)])
def test_a_network_takes_the_limit_and_no_more(kind: str, padding: int | None, tmp_path: Path) -> None:
    """One token more and transformers fails: 34 positions take 32 tokens if the first comes after the padding's."""
    import torch
    from transformers import AutoConfig, AutoModel

    settings, limit = NETWORKS[kind]
    if padding is not None:
        settings = settings | {"pad_token_id": padding}
        limit = {"roberta": 29, "mpnet": 32}[kind]
    config = AutoConfig.for_model(kind, **SIZES, **settings)
    config.save_pretrained(tmp_path)
    found = model_limit(tmp_path)
    assert found is not None
    assert found.tokens == limit
    assert found.source.startswith("max_position_embeddings")
    network = AutoModel.from_config(config).eval()
    for tokens in (limit, limit + 1):
        ids = torch.full((1, tokens), 7)
        with torch.inference_mode():
            if tokens == limit:
                assert network(input_ids=ids).last_hidden_state.shape == (1, limit, 16)
                continue
            with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)|must match|expanded size"):
                network(input_ids=ids)


FOLDERS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "config alone": ({}, {}, 64),
    "tokenizer less": ({TOKENIZER: {"model_max_length": 20}}, {}, 20),
    "tokenizer more": ({TOKENIZER: {"model_max_length": 99}}, {}, 64),
    "own less": ({SENTENCE: {"max_seq_length": 30}}, {}, 30),
    "own more than the tokenizer's": (
        {SENTENCE: {"max_seq_length": 50}, TOKENIZER: {"model_max_length": 20}},
        {},
        50,
    ),
    "yarn": ({}, {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}, 64),
    "sliding window": ({}, {"use_sliding_window": True, "sliding_window": 16}, 64),
}
"""Files, changes of config.json, and the limit."""


def make_folder(folder: Path, name: str) -> Path:
    from transformers import Qwen3Config, Qwen3Model

    files, changes, _ = FOLDERS[name]
    make_tokenizer(folder)
    sizes = SIZES | {"vocab_size": 700, "max_position_embeddings": 64, "num_key_value_heads": 1, "head_dim": 32}
    config = Qwen3Config(**(sizes | changes))
    Qwen3Model(config).save_pretrained(folder)
    for file, values in files.items():
        path = folder / file
        there = json.loads(path.read_bytes()) if path.is_file() else {}
        path.write_text(json.dumps(there | values))
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_the_limit_is_that_of_sentence_transformers(name: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = make_folder(tmp_path / "model", name)
    found = model_limit(folder)
    assert found is not None
    assert found.tokens == FOLDERS[name][2]
    assert SentenceTransformer(str(folder), device="cpu").max_seq_length == FOLDERS[name][2]


@pytest.mark.slow
@needs_vllm
def test_vllm_takes_the_limit(tmp_path: Path) -> None:
    """vLLM's own limit is never less. It ignores the tokenizer's where positions are not embedded."""
    folders = [make_folder(tmp_path / name, name) for name in FOLDERS]
    program = """
import sys
from vllm.config import ModelConfig
for folder in sys.argv[1:]:
    arguments = dict(model=folder, runner="pooling", convert="embed", dtype="float32", skip_tokenizer_init=True)
    print("LIMIT", ModelConfig(**arguments).max_model_len)
"""
    command = [sys.executable, "-c", program, *map(str, folders)]
    done = subprocess.run(command, check=True, cwd=ROOT, timeout=250, capture_output=True, text=True)
    limits = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("LIMIT")]
    ignored = {"tokenizer less": 64}
    assert limits == [ignored.get(name, tokens) for name, (_, _, tokens) in FOLDERS.items()]


def test_rows_longer_than_a_roberta_takes_are_dropped(tmp_path: Path) -> None:
    """A RoBERTa of 34 positions takes 32 tokens. Its longer rows are dropped, and a larger --max-length is refused."""
    from tokenizers import Tokenizer
    from transformers import RobertaConfig, RobertaModel

    folder = make_folder(tmp_path / "model", "config alone")
    RobertaModel(RobertaConfig(**(SIZES | {"vocab_size": 700}))).save_pretrained(folder)
    fixed = len(
        Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a\n\n\n\nb").ids
    )  # between them, no reasoning
    chats = [chat("a", "b" + "7" * (tokens - fixed)) for tokens in (31, 32, 33, 34)]  # a digit is a token
    data = write_chats(tmp_path / "chats.jsonl", chats)
    request = ["--dataset", data, "--model", folder, "--engine", "transformers", "--device", "cpu", "--full"]
    embedkit("prepare", *request, "--output-dir", tmp_path, "--run-name", "run")
    dropped = pl.read_parquet(tmp_path / "run" / "dropped_rows.parquet")
    assert dropped.select("row", "reason").rows() == [(2, "too_long"), (3, "too_long")]
    refused = embedkit("prepare", *request, "--max-length", 33, "--output-dir", tmp_path, "--run-name", "two", code=2)
    limit = "the model takes 32 tokens at most (max_position_embeddings 34 in config.json, less 2 that no token has)"
    assert f"embedkit: --max-length 33: {limit}\n" in refused.stderr
