"""The real vLLM engine on the CPU against a plain transformers forward, and at the limits."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from tests.conftest import ROOT, chat, embedkit, needs_vllm, write_chats
from tests.support.models import make_tiny_qwen
from tests.support.naive import forward

pytestmark = [needs_vllm, pytest.mark.slow]  # loading vLLM takes ten seconds of CPU and more

Vectors = npt.NDArray[np.float32]

TEXTS = [
    "The river runs past the old mill.",
    "Wie spät ist es? Es ist halb acht.",
    "12 * 12 = 144",
    "漢字 🙂 кириллица",
    "a",
    "so it goes " * 30,
]
MORE = ["seven stones " * n for n in (40, 3, 55, 20, 31, 60, 2, 12, 50, 7, 45, 25, 35, 16)]
"""With TEXTS twenty texts, which are more than three batches of 512 tokens."""


LIMITS = {"m[1]": 512, "minilm": 256}
"""Longest text of each model, and its token budget."""


@pytest.fixture(scope="module")
def vectors(tiny_qwen: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Vectors]:
    """The vectors of TEXTS and MORE of each model: all together, over a budget of the longest text.

    In a process of its own, which vLLM wants. Loading vLLM takes longer than starting it with a second model. Each text
    alone has the same vector.

    vLLM finds weights by a glob, and the path of m[1], tiny_qwen, is one that matches the folder beside it.
    """
    folder = tmp_path_factory.mktemp("models")
    _, beside = (shutil.copytree(tiny_qwen, folder / name) for name in ("m[1]", "m1"))
    weights = load_file(beside / "model.safetensors")
    save_file({name: values[::-1].copy() for name, values in weights.items()}, beside / "model.safetensors")
    (folder / "minilm").symlink_to(minilm)
    program = """
import sys, json
from pathlib import Path
import numpy as np
from embedkit.engines import start_engine
from embedkit.documents.schema import EngineSettings
from embedkit.model.tokenizer import load_tokenizer
folder, texts = Path(sys.argv[1]), json.loads(sys.argv[2])
for name, max_length in json.loads(sys.argv[3]).items():
    settings = EngineSettings(device="cpu", dtype="float32", max_length=max_length, chunk_tokens=1,
                              token_budget=max_length, max_sequences=64, eager=True)
    engine = start_engine("vllm", folder / name, settings)
    tokens = load_tokenizer(folder / name).encode(texts)
    assert tokens.lengths.sum() > 3 * max_length, tokens.lengths
    batched = engine.embed([tokens[i] for i in range(len(tokens))])
    alone = np.concatenate([engine.embed([tokens[i]]) for i in range(len(tokens))])
    np.savez(folder / f"{name}.npz", batched=batched, alone=alone)
    engine.close()
"""
    arguments = [str(folder), json.dumps(TEXTS + MORE), json.dumps(LIMITS)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=ROOT, timeout=250)
    found = {name: np.load(folder / f"{name}.npz") for name in LIMITS}
    for of_model in found.values():
        assert np.abs(of_model["batched"] - of_model["alone"]).max() <= 1e-6
    return {name: of_model["batched"] for name, of_model in found.items()}


def test_fault_8_tiny_qwen_equals_a_plain_forward(vectors: dict[str, Vectors], tiny_qwen: Path) -> None:
    """Fault 8 of the replaced scripts: padded left, indexed right, short rows got another position's vector."""
    assert vectors["m[1]"].shape == (20, 64)
    assert np.abs(vectors["m[1]"] - forward(tiny_qwen, TEXTS + MORE, "last")).max() <= 1e-5


def test_minilm_equals_a_plain_forward_and_sentence_transformers(vectors: dict[str, Vectors], minilm: Path) -> None:
    from sentence_transformers import SentenceTransformer

    assert np.abs(vectors["minilm"] - forward(minilm, TEXTS + MORE, "mean")).max() <= 1e-5
    theirs = SentenceTransformer(str(minilm), device="cpu").encode(TEXTS + MORE)
    assert np.abs(vectors["minilm"] - theirs).max() <= 1e-5


@pytest.fixture(scope="module")
def short_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "short"
    make_tiny_qwen(folder, limit=64)
    return folder


def text_of(model: Path, tokens: int) -> str:
    """A text of exactly so many tokens, special ones counted."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    text = "7" * (tokens - 1)
    assert len(tokenizer.encode(text).ids) == tokens
    return text


def test_fault_4_lengths_at_the_models_limit(short_qwen: Path, tmp_path: Path) -> None:
    """Fault 4 of the replaced scripts: a row over the limit, let through by the bound of two characters a token, failed
    the whole call; one of exactly the limit hung vLLM.
    """
    lengths = [63, 64, 65, *([62] * 9), 5, 64, 1000]
    chats = [chat("", text_of(short_qwen, n)) for n in lengths]
    data = write_chats(tmp_path / "limit.parquet", chats)
    embedkit("run", "--dataset", data, "--model", short_qwen, "--output-dir", tmp_path, "--run-name", "run")
    metadata = pl.read_parquet(tmp_path / "run" / "embeddings" / "metadata.parquet")
    assert metadata["num_tokens"].to_list() == [n for n in lengths if n <= 64]
    dropped = pl.read_parquet(tmp_path / "run" / "dropped_rows.parquet")
    assert dropped.select("row", "reason", "token_count").rows() == [(2, "too_long", 65), (14, "too_long", 1000)]


def test_vectors_in_bfloat16_are_stored_as_torch_rounds_them(tiny_qwen: Path, tmp_path: Path) -> None:
    """vLLM normalizes in float32, so numbers change, though it computes in bfloat16. What is stored is their rounding.

    The weights of the last norm are not all 1, or rounding would undo the division by a length of 8.
    """
    import torch
    from safetensors.torch import load_file as load_tensors

    model = Path(shutil.copytree(tiny_qwen, tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    last = next(name for name in weights if name in ("norm.weight", "model.norm.weight"))
    weights[last] = np.random.default_rng(5).uniform(0.5, 1.5, weights[last].shape).astype(weights[last].dtype)
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    data = write_chats(tmp_path / "chats.parquet", [chat(text, "yes") for text in TEXTS])
    found = {}
    for store in ("float32", "bfloat16"):
        what = ["--dataset", data, "--model", model, "--output-dir", tmp_path, "--run-name", store, "--shards", 1]
        embedkit("run", *what, "--engine", "vllm", "--device", "cpu", "--dtype", "bfloat16", "--store", store)
        found[store] = load_tensors(tmp_path / store / "embeddings" / "all.safetensors")["embeddings"]
    assert found["bfloat16"].dtype == torch.bfloat16
    assert torch.equal(found["bfloat16"], found["float32"].to(torch.bfloat16))
    distances = 1 - torch.cosine_similarity(found["float32"].double(), found["bfloat16"].double())
    assert 1e-7 < float(distances.mean()) < float(distances.max()) < 7.63e-6  # half the square of 2^-8
