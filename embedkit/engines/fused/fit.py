"""Whether the fused kernels fit a model and a machine."""

from pathlib import Path

from embedkit.documents import Dtype
from embedkit.model import Dense, read_head, read_json
from embedkit.versions import find_distribution

ARCHITECTURE = "Qwen3ForCausalLM"
HEAD_DIM = 128
"""Columns of a product's tile, and so the numbers of a head."""
GROUPS = (1, 2, 4, 8)
"""Heads of queries that share a head of keys: tiles of attention are powers of two."""
ALIGNED = 64
"""Sizes of the products are multiples of this."""
PACKAGE, VERSION = "quack-kernels", "0.5.0"
"""The release whose kernels were tried, and whose insides `heads_product` uses. It goes with vLLM 0.24."""


def misfit(model: Path, dtype: Dtype) -> str:
    """What of a model the fused kernels do not fit, as `config.json: hidden_act gelu`; "" if they fit.

    model: the model's folder.
    """
    if dtype != "bfloat16":
        return f"--dtype {dtype}: they compute in bfloat16"
    config = read_json(model, "config.json")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    wanted = {
        "architectures": [ARCHITECTURE],
        "hidden_act": "silu",
        "attention_bias": False,
        "is_causal": True,
        "use_sliding_window": False,
        "quantization_config": None,
        "dual_chunk_attention_config": None,
    }
    defaults = {"architectures": None, "hidden_act": "silu", "is_causal": True}
    for name, value in wanted.items():
        found = config.get(name, defaults.get(name, value))
        if found != value:
            return f"config.json: {name} {found}"
    if (kind := rope.get("rope_type", rope.get("type", "default"))) != "default":
        return f"config.json: rope_type {kind}"
    if (dim := config.get("head_dim")) != HEAD_DIM:
        return f"config.json: head_dim {dim}"
    queries, keys = (config.get(f"num_{kind}_heads") for kind in ("attention", "key_value"))
    if not queries or not keys or queries not in (keys * group for group in GROUPS):
        return f"config.json: {queries} heads of queries, {keys} of keys"
    for name in ("hidden_size", "intermediate_size"):
        if not isinstance(size := config.get(name), int) or size % ALIGNED:
            return f"config.json: {name} {size}"
    return ""


def inexact(model: Path) -> str:
    """What makes a vector depend on the batch even with fused kernels, as `the pooling mean`; "" if nothing.

    model: the model's folder.
    """
    head = read_head(model)
    if head.pooling != ("lasttoken",):
        return f"the pooling {' + '.join(head.pooling)}"
    return "the module Dense" if any(isinstance(step, Dense) for step in head.steps) else ""


def misfit_here() -> str:
    """What this machine lacks for the fused kernels, as `quack-kernels 0.5.0 is not installed`; "" if nothing.

    It asks CUDA for the GPU.
    """
    found = find_distribution(PACKAGE)
    if found is None or found.version != VERSION:
        return f"{PACKAGE} {VERSION} is not installed" + (f", but {found.version}" if found else "")
    import torch

    if torch.version.hip is not None:
        return f"{torch.cuda.get_device_name()} is no GPU of NVIDIA"
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) != (9, 0):
        return f"{torch.cuda.get_device_name()} has compute capability {major}.{minor}, not 9.0 (Hopper)"
    from vllm.vllm_flash_attn import is_fa_version_supported

    return "" if is_fa_version_supported(3) else "this vLLM was built without FlashAttention 3"
