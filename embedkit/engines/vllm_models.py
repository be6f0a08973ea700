"""What vLLM does with the settings of a model folder, and which of them it ignores.

Source: vLLM 0.32, `transformers_utils/config.py`, `model_executor/models/adapters.py` and the models' code. vLLM says
nothing when it ignores a setting. Tests compare the rest with sentence-transformers.
"""

from pathlib import Path
from typing import Any, Literal

from embedkit.errors import UsageError
from embedkit.model import Dense, Head, LayerNorm, Normalize, PoolingMode, read_head, read_json

VllmPooling = Literal["CLS", "LAST", "MEAN"]
POOLING: dict[PoolingMode, VllmPooling] = {"cls": "CLS", "lasttoken": "LAST", "mean": "MEAN"}
DENSE_TYPES = {"sentence_transformers.models.Dense", "sentence_transformers.base.modules.dense.Dense"}
ACTIVATIONS = {"GELU", "Identity", "ReLU", "SiLU", "Sigmoid", "Tanh"}
"""Activations of a Dense module. With another, vLLM leaves out all Dense modules."""
ENCODERS = {"bert", "camembert", "distilbert", "modernbert", "roberta", "xlm-roberta"}
"""Model types whose attention looks both ways, whatever is_causal says."""
READS_IS_CAUSAL = {"llama", "mistral", "qwen2", "qwen3"}
"""Model types of which `"is_causal": false` makes an encoder, in vLLM as in transformers."""
READS_BIDIRECTIONAL = {"gemma3_text"}
"""Model types of which `"use_bidirectional_attention": true` makes an encoder, in vLLM as in transformers."""


def check_vllm(model: Path) -> Head:
    """The head of a model that vLLM runs right. Raises UsageError with the first setting that it does not honour."""
    head = read_head(model)
    problem = _head_problem(model, head) or _config_problem(read_json(model, "config.json"))
    if problem is not None:
        file, setting = problem if isinstance(problem, tuple) else (model / "config.json", problem)
        raise UsageError(f"{file}: vLLM does not honour {setting}; use --engine transformers")
    return head


def vllm_pooling(head: Head) -> tuple[VllmPooling, bool]:
    """vLLM's name of the pooling, and whether vectors are normalized."""
    return POOLING[head.pooling[0]], Normalize() in head.steps


def _head_problem(model: Path, head: Head) -> tuple[Path, str] | None:
    """File and name of a setting of the head that vLLM ignores; None if there is none."""
    if len(head.pooling) > 1 or head.pooling[0] not in POOLING:
        return head.pooling_file, f"the pooling {' + '.join(head.pooling)}"
    modules = model / "modules.json"
    is_normalized = False
    for step in head.steps:
        if isinstance(step, LayerNorm):
            return modules, "the module LayerNorm"
        if isinstance(step, Normalize):
            is_normalized = True
            continue
        if is_normalized:
            return modules, "the module Normalize before Dense"
        if step.type not in DENSE_TYPES:
            return modules, f"the module {step.type}"
        if (problem := _dense_problem(step)) is not None:
            return step.folder / "config.json", problem
    return None


def _dense_problem(dense: Dense) -> str | None:
    if dense.residual:
        return "use_residual"
    if "activation_function" not in read_json(dense.folder, "config.json"):
        return "the default activation_function, Tanh, which it leaves out"
    name = dense.activation
    if not name.startswith("torch.nn.modules.") or name.rpartition(".")[2] not in ACTIVATIONS:
        return f"activation_function {name}"
    return None


def _config_problem(config: dict[str, Any]) -> str | None:
    """The name of a setting in config.json that vLLM ignores; None if there is none."""
    kind = config.get("model_type")
    for name in ("is_decoder", "is_encoder_decoder", "speculators_config"):
        if config.get(name):
            return name
    if config.get("is_causal") is False and kind not in READS_IS_CAUSAL | ENCODERS:
        return f'"is_causal": false of the model type {kind}'
    if config.get("use_bidirectional_attention") and kind not in READS_BIDIRECTIONAL:
        return f"use_bidirectional_attention of the model type {kind}"
    return None
