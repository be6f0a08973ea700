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


def with_modules_of_many_kinds(folder: Path) -> list[Path]:
    """Three poolings, Dense modules with each activation, both spellings of modules, none or two Normalize."""
    make_bert(folder / "bert")
    make_decoder(folder / "qwen3", "Qwen3Model")
    bert, qwen = folder / "bert", folder / "qwen3"
    names = ["Tanh", "GELU", "ReLU", "SiLU", "Sigmoid"]
    several = [dense(WIDTH, WIDTH, f"torch.nn.modules.activation.{name}", bias=name != "ReLU") for name in names]
    last = dense(WIDTH, 9, "torch.nn.modules.linear.Identity")
    cut = with_modules(bert, folder / "cut", pooling("cls"), NORMALIZE)
    edit_json(cut / "config_sentence_transformers.json", truncate_dim=8)
    return [
        with_modules(bert, folder / "last", pooling("lasttoken")),
        with_modules(qwen, folder / "cls", pooling("cls"), NORMALIZE, NORMALIZE),
        with_modules(qwen, folder / "mean", pooling("mean"), ("Dropout", {"dropout": 0.5})),
        with_modules(bert, folder / "dense", pooling("cls"), *several, last, NORMALIZE),
        with_modules(bert, folder / "new", pooling("mean"), dense(WIDTH, 9), NORMALIZE, names=NEW),
        cut,
    ]


def that_look_both_ways(folder: Path) -> list[Path]:
    kinds = ("Qwen2Model", "Qwen3Model", "LlamaModel", "MistralModel")
    for kind in kinds:
        make_decoder(folder / kind, kind, is_causal=False)
    make_decoder(folder / "gemma", "Gemma3TextModel", use_bidirectional_attention=True)
    return [*(folder / kind for kind in kinds), folder / "gemma"]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Models of both kinds, embedded by one process: each has its vectors in vectors.npy."""
    folder = tmp_path_factory.mktemp("models")
    found = {"modules": with_modules_of_many_kinds(folder), "both ways": that_look_both_ways(folder)}
    command = [
        sys.executable,
        "-c",
        EMBED,
        json.dumps(TEXTS),
        *(str(path) for paths in found.values() for path in paths),
    ]
    subprocess.run(command, check=True, cwd=ROOT, timeout=400)
    return found


@pytest.mark.timeout(500)  # the first one waits for the process
@pytest.mark.parametrize(("kind", "models"), [("modules", 6), ("both ways", 5)])
def test_what_vllm_honours(kind: str, models: int, embedded: dict[str, list[Path]]) -> None:
    assert len(embedded[kind]) == models
    for folder in embedded[kind]:
        found, right = np.load(folder / "vectors.npy"), sentence_vectors(folder)
        assert found.shape == right.shape, folder
        assert np.abs(found - right).max() <= 1e-5, folder
