"""The transformers engine: the same vectors as vLLM and as a plain forward, whatever a batch looks like."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.documents.schema import Dtype, EngineSettings
from embedkit.engines.transformers import TransformersEngine
from embedkit.errors import EmbedkitError
from embedkit.model.tokenizer import load_tokenizer
from embedkit.prepare.plan import MAX_SEQUENCES, TOKEN_BUDGET
from tests.embedkit.engines.test_vllm import TEXTS
from tests.support.naive import forward
from tests.support.st_models import make_bert


def engine_of(model: Path, max_length: int = 256, dtype: Dtype = "float32") -> TransformersEngine:
    settings = EngineSettings(
        device="cpu",
        dtype=dtype,
        max_length=max_length,
        chunk_tokens=1,
        token_budget=TOKEN_BUDGET["cpu"],
        max_sequences=MAX_SEQUENCES["cpu"],
        eager=True,
    )
    return TransformersEngine(model, settings)


def token_ids(model: Path, texts: Sequence[str]) -> list[npt.NDArray[np.uint32]]:
    tokens = load_tokenizer(model).encode(texts)
    return [tokens[i] for i in range(len(tokens))]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes), encoding="utf-8")


def variant(model: Path, folder: Path, pooling: str, normalize: bool) -> Path:
    """A copy of a model's folder with another pooling."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "1_Pooling" / "config.json").read_bytes())
    config = {name: value for name, value in config.items() if not name.startswith("pooling_mode")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config | {pooling: True}))
    if not normalize:
        modules = json.loads((folder / "modules.json").read_bytes())
        (folder / "modules.json").write_text(json.dumps(modules[:2]))
    return folder


@pytest.mark.parametrize("side", ["left", "right"])
def test_fault_8_rows_are_pooled_at_their_own_last_token(side: str, tiny_qwen: Path, tmp_path: Path) -> None:
    """Fault 8 of the replaced scripts: they padded on the left and indexed as if on the right."""
    shutil.copytree(tiny_qwen, tmp_path / "model")
    edit(tmp_path / "model" / "tokenizer_config.json", padding_side=side)
    engine = engine_of(tmp_path / "model", 512)
    ids = token_ids(tmp_path / "model", TEXTS)
    vectors = engine.embed(ids)
    assert np.abs(vectors - forward(tmp_path / "model", TEXTS, "last")).max() <= 1e-6
    alone = np.concatenate([engine.embed([row]) for row in ids])
    assert np.abs(vectors - alone).max() <= 1e-6


def test_minilm_equals_sentence_transformers(minilm: Path) -> None:
    from sentence_transformers import SentenceTransformer

    vectors = engine_of(minilm).embed(token_ids(minilm, TEXTS))
    assert vectors.dtype == np.float32
    assert np.abs(vectors - SentenceTransformer(str(minilm), device="cpu").encode(TEXTS)).max() <= 1e-6


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    "pooling", ["pooling_mode_lasttoken", "pooling_mode_mean_tokens", "pooling_mode_cls_token"]
)  # fmt: skip
def test_any_pooling_equals_sentence_transformers(pooling: str, normalize: bool, minilm: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = variant(minilm, tmp_path / "model", pooling, normalize)
    vectors = engine_of(folder).embed(token_ids(folder, TEXTS))
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert np.abs(vectors - theirs).max() <= 1e-5
    assert bool(np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5) is normalize


def test_bfloat16_points_the_same_way(minilm: Path) -> None:
    vectors = engine_of(minilm, dtype="bfloat16").embed(token_ids(minilm, TEXTS))
    assert (vectors * forward(minilm, TEXTS, "mean")).sum(axis=1).min() > 0.999


class SmallMemory:
    """Stands in for a GPU whose memory holds so many tokens a batch."""

    def __init__(self, network: Any, tokens: int, error: Exception) -> None:
        self.network, self.tokens, self.error = network, tokens, error
        self.batches: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, input_ids: Any, **arguments: Any) -> Any:
        self.batches.append(tuple(input_ids.shape))
        if input_ids.numel() > self.tokens:
            raise self.error
        return self.network(input_ids=input_ids, **arguments)


def out_of_memory(message: str) -> Exception:
    import torch  # here, because every worker imports all test modules

    return torch.OutOfMemoryError(message)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (out_of_memory, "CUDA out of memory. Tried"),
        pytest.param(RuntimeError, "DefaultCPUAllocator: can't allocate memory", marks=pytest.mark.slow),
    ],
)
def test_a_stand_in_for_a_full_memory_halves_the_batch_for_good(
    kind: Callable[[str], Exception], message: str, minilm: Path
) -> None:
    engine, error = engine_of(minilm), kind(message)
    ids = token_ids(minilm, [f"{text} {i}" for i in range(8) for text in TEXTS])
    whole = engine.embed(ids)
    memory = engine._network = SmallMemory(engine._network, 1000, error)
    assert np.abs(engine.embed(ids) - whole).max() <= 1e-6
    failed = [rows * tokens for rows, tokens in memory.batches if rows * tokens > 1000]
    assert 1 <= len(failed) <= 5
    memory.batches.clear()
    engine.embed(ids)
    assert all(rows * tokens <= 1000 for rows, tokens in memory.batches)


def test_a_row_too_large_for_a_stand_in_memory_is_an_error(minilm: Path) -> None:
    engine = engine_of(minilm)
    engine._network = SmallMemory(engine._network, 50, out_of_memory("CUDA out of memory"))
    with pytest.raises(EmbedkitError, match=r"a row of \d+ tokens alone does not fit the memory: CUDA out of memory"):
        engine.embed(token_ids(minilm, TEXTS))


def test_other_errors_of_the_network_stand_in_are_not_hidden(minilm: Path) -> None:
    engine = engine_of(minilm)
    engine._network = SmallMemory(engine._network, 0, RuntimeError("device-side assert"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        engine.embed(token_ids(minilm, TEXTS))


class Ones:
    """Stands in for a network: all its hidden states are ones, at no cost."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __call__(self, input_ids: Any, **_: Any) -> Any:
        import torch

        return SimpleNamespace(last_hidden_state=torch.ones(1).expand(*input_ids.shape, self.config.hidden_size))


def test_batches_of_a_stand_in_keep_to_the_token_budget(minilm: Path) -> None:
    engine = engine_of(minilm)
    memory = engine._network = SmallMemory(Ones(engine._network), 10**9, ValueError())
    engine.embed([np.arange(1000, 1000 + n, dtype=np.uint32) for n in [7, 250, 3] * 100])
    sizes = [rows * tokens for rows, tokens in memory.batches]
    assert max(sizes) <= TOKEN_BUDGET["cpu"]
    assert len(sizes) == 5  # 100 x 250 in fours of 32 rows; then short rows, 256 at most


def test_weights_that_are_missing_are_not_made_up(tiny_qwen: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_qwen, tmp_path / "model")
    weights = load_file(tiny_qwen / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EmbedkitError, match=r"the weights lack 1 tensors, layers.1.mlp.up_proj.weight first"):
        engine_of(tmp_path / "model", 512)


def test_weights_of_a_pooler_that_is_not_used_may_be_missing(tmp_path: Path) -> None:
    """Checkpoints of sentence-transformers often lack BERT's own pooling layer. A weight that is used is named."""
    from safetensors.torch import load_file, save_file

    make_bert(tmp_path / "a")
    ids = token_ids(tmp_path / "a", TEXTS)
    before = engine_of(tmp_path / "a", 512).embed(ids)
    path = tmp_path / "a" / "model.safetensors"
    weights = {name: values for name, values in load_file(path).items() if not name.startswith("pooler.")}
    assert len(load_file(path)) - len(weights) == 2
    save_file(weights, path, metadata={"format": "pt"})
    assert np.array_equal(engine_of(tmp_path / "a", 512).embed(ids), before)
    del weights["embeddings.LayerNorm.bias"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(EmbedkitError, match=r"the weights lack 1 tensors, embeddings\.LayerNorm\.bias first"):
        engine_of(tmp_path / "a", 512)
