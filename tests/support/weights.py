"""Model folders with the shapes of real models and without their weights: only the header of the weights is there."""

import json
from pathlib import Path


def write_shapes(folder: Path, shapes: dict[str, list[int]], config: dict[str, object]) -> Path:
    """Write a folder whose `model.safetensors` has tensors of these shapes, and none of their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {"__metadata__": {"format": "pt"}} | {
        name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()
    }
    data = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(data).to_bytes(8, "little") + data)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


QWEN_CONFIG: dict[str, object] = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 28,
}


def qwen3_06b(folder: Path) -> Path:
    """Qwen3-Embedding-0.6B: 28 layers, each of 15,730,944 parameters; 155,309,056 more are token embeddings."""
    shapes = {"embed_tokens.weight": [151_669, 1024], "norm.weight": [1024]}
    for layer in range(28):
        of_layer = {
            "input_layernorm": [1024],
            "mlp.down_proj": [1024, 3072],
            "mlp.gate_proj": [3072, 1024],
            "mlp.up_proj": [3072, 1024],
            "post_attention_layernorm": [1024],
            "self_attn.k_norm": [128],
            "self_attn.k_proj": [1024, 1024],
            "self_attn.o_proj": [1024, 2048],
            "self_attn.q_norm": [128],
            "self_attn.q_proj": [2048, 1024],
            "self_attn.v_proj": [1024, 1024],
        }
        shapes |= {f"layers.{layer}.{name}.weight": shape for name, shape in of_layer.items()}
    return write_shapes(folder, shapes, QWEN_CONFIG)
