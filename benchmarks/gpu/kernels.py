"""The fused kernels one by one: what each gives beside plain torch, and how long it takes beside the libraries' own.

    python -m benchmarks.gpu.kernels

Prints a JSON object. Shapes are those of a layer of Qwen3-Embedding-0.6B with 65,536 tokens. All are timed in turns, in
the same process, so that they find the GPU equally hot.
"""

import json
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.sweep import CORPORA, texts
from embedkit.engines.fused.kernels import Heads, Tensor, Texts
from embedkit.engines.fused.reference import ReferenceKernels

TOKENS, HIDDEN, INNER, LAYERS = 65_536, 1024, 3072, 28
QUERIES, KEYS, DIM = 16, 8, 128
EPS = 1e-6
ROWS_CHECKED = (1, 3, 130, 1237)
"""Numbers of tokens of the checks: of one tile, of several, and not divisible by 4."""
ROUNDS = 5
WARM_UP_MS, TIMED_MS = 10, 60


def main() -> None:
    """Check, time and print."""
    checks = check_kernels()
    timed = timed_kernels()
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "errors": checks, **timed, "ceilings": ceilings(timed)}))


class Layer:
    """Random weights and inputs of a layer."""

    def __init__(self, tokens: int) -> None:
        generator = torch.Generator("cuda").manual_seed(0)

        def random(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(*shape, device="cuda", generator=generator) * scale).bfloat16()

        self.hidden, self.residual = random(tokens, HIDDEN), random(tokens, HIDDEN)
        self.attended, self.gated = random(tokens, QUERIES * DIM), random(tokens, INNER)
        self.scale = torch.rand(tokens, device="cuda", generator=generator) + 0.5
        self.qkv = random((QUERIES + 2 * KEYS) * DIM, HIDDEN, scale=0.03)
        self.out = random(HIDDEN, QUERIES * DIM, scale=0.03)
        self.gate_up, self.down = random(2 * INNER, HIDDEN, scale=0.03), random(HIDDEN, INNER, scale=0.03)
        angles = torch.outer(torch.arange(32_768.0), 1e6 ** -(torch.arange(0, DIM, 2) / DIM)).cuda()
        table = torch.cat([angles.cos(), angles.sin()], 1).bfloat16()
        self.heads = Heads(QUERIES, KEYS, DIM, random(2, DIM).abs() + 0.5, EPS, table)
        self.positions = torch.arange(tokens, device="cuda") % 300


def check_kernels() -> dict[str, float]:
    """Per kernel the largest error, relative to the largest number, of all numbers of tokens checked."""
    from embedkit.engines.fused.hopper import HopperKernels, attend_flash  # which needs the GPU build
    from embedkit.engines.fused.short_attention import attend_short

    errors: dict[str, float] = {}

    def note(name: str, found: Tensor, wanted: Tensor) -> None:
        error = ((found.float() - wanted.float()).abs().max() / wanted.float().abs().max()).item()
        errors[name] = max(errors.get(name, 0.0), error)

    kernels, plain = HopperKernels(), ReferenceKernels()
    for tokens in ROWS_CHECKED:
        layer = Layer(tokens)
        note("row scale", *(each.row_scale(layer.hidden, EPS) for each in (kernels, plain)))
        of_heads = (layer.hidden, layer.qkv, layer.scale, layer.positions, layer.heads, QUERIES, KEYS)
        note("product with heads", *(each.heads_product(*of_heads) for each in (kernels, plain)))
        gating = (layer.hidden, layer.gate_up, layer.scale)
        note("product with SwiGLU", *(each.gated_product(*gating) for each in (kernels, plain)))
        adding = (layer.gated, layer.down, layer.residual, EPS)
        for name, found, wanted in zip(
            ("product with residual", "its row scale"),
            *(each.added_product(*adding) for each in (kernels, plain)),
            strict=True,
        ):
            note(name, found, wanted)
        parts = plain.heads_product(*of_heads).split([QUERIES * DIM, KEYS * DIM, KEYS * DIM], 1)
        some = Texts(torch.tensor([0, tokens // 3, tokens], dtype=torch.int32, device="cuda"), tokens - tokens // 3)
        wanted = plain.attend(*parts, some, layer.heads)
        note("attention", attend_flash(*parts, some, layer.heads), wanted)
        note("attention of short texts", attend_short(*parts, some, layer.heads), wanted)
        last = some.starts[1:].long() - 1
        if tokens > 3:
            found = kernels.attend_last(parts[0][last], *parts[1:], some, layer.heads)
            note("attention of last tokens", found, wanted[last])
    return errors


def timed_kernels() -> dict[str, Any]:
    """Microseconds of the fused kernels and of the libraries' products alone, and Tflops per second of the products."""
    from embedkit.engines.fused.hopper import HopperKernels

    layer, kernels = Layer(TOKENS), HopperKernels()
    flops = {"qkv": layer.qkv, "out": layer.out, "gate and up": layer.gate_up, "down": layer.down}
    calls: dict[str, Callable[[], object]] = {
        "qkv": lambda: kernels.heads_product(
            layer.hidden, layer.qkv, layer.scale, layer.positions, layer.heads, QUERIES, KEYS
        ),
        "gate and up": lambda: kernels.gated_product(layer.hidden, layer.gate_up, layer.scale),
        "out": lambda: kernels.added_product(layer.attended, layer.out, layer.residual, EPS),
        "down": lambda: kernels.added_product(layer.gated, layer.down, layer.residual, EPS),
        "cublas qkv": lambda: layer.hidden @ layer.qkv.T,
        "cublas gate and up": lambda: layer.hidden @ layer.gate_up.T,
        "cublas out": lambda: layer.attended @ layer.out.T,
        "cublas down": lambda: layer.gated @ layer.down.T,
    }
    found = in_turns(calls)
    rates = {
        name: round(2 * TOKENS * flops[name.removeprefix("cublas ")].numel() / microseconds / 1e6)
        for name, microseconds in found.items()
    }
    return {"microseconds": found, "tflops": rates}


def ceilings(timed: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Per corpus, tokens per second if a layer were the libraries' products and FlashAttention 3 alone."""
    from embedkit.engines.fused.hopper import attend_flash

    products = sum(value for name, value in timed["microseconds"].items() if name.startswith("cublas")) / TOKENS
    layer = Layer(TOKENS)
    parts = (layer.hidden @ layer.qkv.T).split([QUERIES * DIM, KEYS * DIM, KEYS * DIM], 1)
    rng, found = np.random.default_rng(0), {}
    for corpus, shape in CORPORA.items():
        lengths = np.sort([len(ids) for ids in texts(rng, *shape)])[::-1]
        batches = [np.array(batch) for batch in batches_of(lengths)]

        def attend(batches: list[Any] = batches) -> None:
            for batch in batches:
                starts = torch.tensor(np.r_[0, batch.cumsum()], dtype=torch.int32, device="cuda")
                of_batch = (part[: int(starts[-1])] for part in parts)
                attend_flash(*of_batch, Texts(starts, int(batch.max())), layer.heads)

        attention = in_turns({"attention": attend})["attention"] / lengths.sum()
        found[corpus] = {
            "products": round(products * 1000, 1),
            "attention": round(attention * 1000, 1),
            "tokens_a_second": round(1e6 / LAYERS / (products + attention)),
        }
    return found


def batches_of(lengths: Any) -> list[list[int]]:
    """The lengths, longest first, in batches of at most TOKENS."""
    batches: list[list[int]] = [[]]
    for length in lengths.tolist():
        if sum(batches[-1]) + length > TOKENS:
            batches.append([])
        batches[-1].append(length)
    return batches


def in_turns(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median microseconds of each call over ROUNDS, in which each has its turn."""
    from triton.testing import do_bench

    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            found[name].append(do_bench(call, warmup=WARM_UP_MS, rep=TIMED_MS, return_mode="median") * 1000)
    return {name: round(statistics.median(each), 1) for name, each in found.items()}


if __name__ == "__main__":
    main()
