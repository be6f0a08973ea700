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

pytestmark = needs_vllm

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


def vllm_vectors(model: Path, texts: list[str], out: Path, max_length: int) -> npt.NDArray[np.float32]:
    """Embed in a process of its own: vLLM wants to be the only live engine of its process.

    Each text alone and all together, over a budget of the longest text, give the same vectors.
    """
    program = """
import sys, json
from pathlib import Path
import numpy as np
from embedkit.engines import start_engine
from embedkit.documents.schema import EngineSettings
from embedkit.model.tokenizer import load_tokenizer
model, out, max_length, texts = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
settings = EngineSettings(device="cpu", dtype="float32", max_length=max_length, chunk_tokens=1,
                          token_budget=max_length, max_sequences=64, eager=True)
engine = start_engine("vllm", model, settings)
tokens = load_tokenizer(model).encode(texts)
assert tokens.lengths.sum() > 3 * max_length, tokens.lengths
batched = engine.embed([tokens[i] for i in range(len(tokens))])
alone = np.concatenate([engine.embed([tokens[i]]) for i in range(len(tokens))])
np.savez(out, batched=batched, alone=alone)
engine.close()
"""
    arguments = [str(model), str(out), str(max_length), json.dumps(texts)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=ROOT, timeout=250)
    found = np.load(out)
    assert np.abs(found["batched"] - found["alone"]).max() <= 1e-6
    batched: npt.NDArray[np.float32] = found["batched"]
    return batched


def test_fault_8_tiny_qwen_equals_a_plain_forward(tiny_qwen: Path, tmp_path: Path) -> None:
    """Fault 8 of the replaced scripts: padded left, indexed right, short rows got another position's vector.

    vLLM finds weights by a glob, and the model's path is one that matches the folder beside it.
    """
    model, beside = (shutil.copytree(tiny_qwen, tmp_path / name) for name in ("m[1]", "m1"))
    weights = load_file(beside / "model.safetensors")
    save_file({name: values[::-1].copy() for name, values in weights.items()}, beside / "model.safetensors")
    texts = TEXTS + MORE
    vectors = vllm_vectors(model, texts, tmp_path / "v.npz", 512)
    assert vectors.shape == (20, 64)
    assert np.abs(vectors - forward(tiny_qwen, texts, "last")).max() <= 1e-5


@pytest.mark.slow
def test_minilm_equals_a_plain_forward_and_sentence_transformers(minilm: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = TEXTS + MORE
    vectors = vllm_vectors(minilm, texts, tmp_path / "v.npz", 256)
    assert np.abs(vectors - forward(minilm, texts, "mean")).max() <= 1e-5
    theirs = SentenceTransformer(str(minilm), device="cpu").encode(texts)
    assert np.abs(vectors - theirs).max() <= 1e-5


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


@pytest.mark.slow
def test_verify_embeds_again(tiny_qwen: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "d.parquet", [chat(f"river {i}", "stone " * i) for i in range(1, 41)])
    embedkit("run", "--dataset", data, "--model", tiny_qwen, "--output-dir", tmp_path, "--run-name", "run")
    assert "40 rows embedded again" in embedkit("verify", tmp_path / "run", "--reembed", 40).stdout
