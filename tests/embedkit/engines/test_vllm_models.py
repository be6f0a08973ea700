"""Settings of a model folder in the real vLLM on the CPU: what is accepted gives sentence-transformers' vectors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, needs_vllm
from tests.support.st_models import (
    NEW,
    NORMALIZE,
    TEXTS,
    WIDTH,
    dense,
    edit_json,
    make_bert,
    make_decoder,
    pooling,
    sentence_vectors,
    with_modules,
)

pytestmark = [needs_vllm, pytest.mark.slow]

EMBED = """
import json, sys
from pathlib import Path
import numpy as np
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
from embedkit.documents.schema import EngineSettings
from embedkit.engines import check_pooling, start_engine
from embedkit.model.tokenizer import load_tokenizer
settings = EngineSettings(device="cpu", dtype="float32", max_length=256, chunk_tokens=1, token_budget=256,
                          max_sequences=64, eager=True)
texts = json.loads(sys.argv[1])
for model in map(Path, sys.argv[2:]):
    check_pooling(model, "vllm")
    engine = start_engine("vllm", model, settings)
    tokens = load_tokenizer(model).encode(texts)
    np.save(model / "vectors.npy", engine.embed([tokens[i] for i in range(len(tokens))]))
    engine.close()
    cleanup_dist_env_and_memory()
"""
"""Embeds with several models one after the other: importing vLLM takes longer than starting it."""


def check_equal(folders: list[Path]) -> None:
    """Compare each folder's vectors with those of sentence-transformers."""
    command = [sys.executable, "-c", EMBED, json.dumps(TEXTS), *map(str, folders)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=400)
    for folder in folders:
        found, right = np.load(folder / "vectors.npy"), sentence_vectors(folder)
        assert found.shape == right.shape, folder
        assert np.abs(found - right).max() <= 1e-5, folder


def test_modules_that_vllm_honours(tmp_path: Path) -> None:
    """Three poolings, Dense modules with each activation, both spellings of modules, none or two Normalize."""
    make_bert(tmp_path / "bert")
    make_decoder(tmp_path / "qwen3", "Qwen3Model")
    bert, qwen = tmp_path / "bert", tmp_path / "qwen3"
    names = ["Tanh", "GELU", "ReLU", "SiLU", "Sigmoid"]
    several = [dense(WIDTH, WIDTH, f"torch.nn.modules.activation.{name}", bias=name != "ReLU") for name in names]
    last = dense(WIDTH, 9, "torch.nn.modules.linear.Identity")
    cut = with_modules(bert, tmp_path / "cut", pooling("cls"), NORMALIZE)
    edit_json(cut / "config_sentence_transformers.json", truncate_dim=8)
    check_equal(
        [
            with_modules(bert, tmp_path / "last", pooling("lasttoken")),
            with_modules(qwen, tmp_path / "cls", pooling("cls"), NORMALIZE, NORMALIZE),
            with_modules(qwen, tmp_path / "mean", pooling("mean"), ("Dropout", {"dropout": 0.5})),
            with_modules(bert, tmp_path / "dense", pooling("cls"), *several, last, NORMALIZE),
            with_modules(bert, tmp_path / "new", pooling("mean"), dense(WIDTH, 9), NORMALIZE, names=NEW),
            cut,
        ]
    )


def test_attention_that_vllm_makes_look_both_ways(tmp_path: Path) -> None:
    for kind in ("Qwen2Model", "Qwen3Model", "LlamaModel", "MistralModel"):
        make_decoder(tmp_path / kind, kind, is_causal=False)
    make_decoder(tmp_path / "gemma", "Gemma3TextModel", use_bidirectional_attention=True)
    check_equal(sorted(tmp_path.iterdir()))
