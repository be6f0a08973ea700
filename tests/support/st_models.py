"""Small model folders with any modules and settings, and the vectors that sentence-transformers makes with them.

Weights are random. They are large enough that a wrong setting moves a vector by far more than the tolerances.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.models import make_tokenizer

WIDTH = 32
TEXTS = [
    "The river runs past the old mill.",
    "Wie spät ist es? Es ist halb acht.",
    "12 * 12 = 144",
    "a",
    "so it goes " * 9,
]
OLD = "sentence_transformers.models."
"""Types in modules.json as older versions of sentence-transformers write them."""
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
"""Types as version 6.2 writes them."""

Module = tuple[str, dict[str, Any]]
"""A module's kind and its config.json."""


def pooling(*modes: str, **further: Any) -> Module:
    """A Pooling module as version 6.2 writes it."""
    return "Pooling", {"embedding_dimension": WIDTH, "pooling_mode": modes[0] if len(modes) == 1 else modes} | further


def dense(inputs: int, outputs: int, activation: str = "torch.nn.modules.activation.Tanh", **further: Any) -> Module:
    """A Dense module."""
    sizes = {"in_features": inputs, "out_features": outputs, "activation_function": activation}
    return "Dense", {"bias": True} | sizes | further


NORMALIZE: Module = ("Normalize", {})


def make_bert(folder: Path, **settings: Any) -> None:
    """Two layers of BERT, with the modules Transformer and Pooling (mean)."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 64}
    make_model(folder, BertModel, BertConfig(vocab_size=1024, initializer_range=0.2, **(sizes | settings)))


def make_decoder(folder: Path, kind: str, **settings: Any) -> None:
    """Two layers of a decoder, such as Qwen3, with the modules Transformer and Pooling (mean)."""
    import transformers

    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 1, "num_key_value_heads": 1}
    sizes |= {"intermediate_size": 64, "head_dim": 32, "max_position_embeddings": 512, "vocab_size": 1024}
    config = getattr(transformers, f"{kind.removesuffix('Model')}Config")(initializer_range=0.2, **(sizes | settings))
    make_model(folder, getattr(transformers, kind), config)


def make_model(folder: Path, network: Any, config: Any) -> None:
    """A model of a class of transformers, with the modules Transformer and Pooling (mean)."""
    import torch

    make_tokenizer(folder)
    torch.manual_seed(0)
    made = network(config).float()
    with torch.no_grad():  # biases of 0 and scales of 1 would hide that they are left out
        for weights in made.parameters():
            if weights.ndim == 1:
                weights.add_(torch.randn_like(weights) * 0.2)
    made.save_pretrained(folder)
    write_modules(folder, [pooling("mean")])


def write_modules(folder: Path, modules: Sequence[Module], names: dict[str, str] | None = None) -> Path:
    """Write the modules that follow the Transformer, with random weights. `names` are types by kind."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    entries = [{"idx": 0, "name": "0", "path": "", "type": _type("Transformer", names)}]
    for i, (kind, config) in enumerate(modules, start=1):
        path = f"{i}_{kind}"
        entries.append({"idx": i, "name": str(i), "path": path, "type": _type(kind, names)})
        shutil.rmtree(folder / path, ignore_errors=True)
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(config))
        if weights := {name: torch.randn(shape) * 0.3 for name, shape in _shapes(kind, config).items()}:
            save_file(weights, folder / path / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(entries))
    return folder


def with_modules(base: Path, folder: Path, *modules: Module, names: dict[str, str] | None = None) -> Path:
    """A copy of a model's folder with other modules."""
    shutil.copytree(base, folder)
    return write_modules(folder, modules, names)


def edit_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON object; the file is made if there is none."""
    before = json.loads(path.read_bytes()) if path.exists() else {}
    path.write_text(json.dumps(before | changes), encoding="utf-8")


def sentence_vectors(folder: Path, texts: Sequence[str] = TEXTS) -> npt.NDArray[np.float32]:
    """The vectors of sentence-transformers, float32."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    vectors: npt.NDArray[np.float32] = model.encode(list(texts))
    return vectors


def _type(kind: str, names: dict[str, str] | None) -> str:
    return OLD + kind if names is None else names[kind]


def _shapes(kind: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    if kind == "LayerNorm":
        return {"norm.weight": (config["dimension"],), "norm.bias": (config["dimension"],)}
    if kind != "Dense":
        return {}
    size = (config["out_features"], config["in_features"])
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": size}
    if config["bias"]:
        shapes["linear.bias"] = size[:1]
    if config.get("use_residual") and size[0] != size[1]:
        shapes["residual.weight"] = size
    return shapes
