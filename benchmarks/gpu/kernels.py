"""The fused kernels one by one: what each gives beside plain torch, and how long it takes beside the libraries' own.

    python -m benchmarks.gpu.kernels

Prints a JSON object. Shapes are those of a layer of Qwen3-Embedding-0.6B with 65,536 tokens. All are timed in turns, in
the same process, so that they find the GPU equally hot.
"""

import json
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.gpu.sweep import CORPORA, texts
from embedkit.engines.fused import self_check
from embedkit.engines.fused.kernels import Heads, Layer, Tensor, Texts, by_thread

TOKENS, HIDDEN, INNER, LAYERS = 65_536, 1024, 3072, 28
QUERIES, KEYS, DIM = 16, 8, 128
EPS = 1e-6
ROUNDS = 5
WARM_UP_MS, TIMED_MS = 10, 60


def main() -> None:
    """Check, time and print."""
    checks = check_kernels()
    timed = timed_kernels()
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "errors": checks, **timed, "ceilings": ceilings(timed)}))


class Inputs(NamedTuple):
    """Random weights and inputs of a layer, for 65,536 tokens."""

    layer: Layer
    hidden: Tensor
    residual: Tensor
    attended: Tensor
    gated: Tensor
    scale: Tensor
    positions: Tensor


def random_inputs() -> Inputs:
    """The same at each call."""
    generator = torch.Generator("cuda").manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, device="cuda", generator=generator) * scale).bfloat16()

    angles = torch.outer(torch.arange(32_768.0), 1e6 ** -(torch.arange(0, DIM, 2) / DIM)).cuda()
    table = torch.cat([angles.cos(), angles.sin()], 1).bfloat16()
    layer = Layer(
        name="",
        heads=Heads(QUERIES, KEYS, DIM, random(2, DIM).abs() + 0.5, EPS, by_thread(table)),
        qkv=random((QUERIES + 2 * KEYS) * DIM, HIDDEN, scale=0.03),
        out=random(HIDDEN, QUERIES * DIM, scale=0.03),
        gate_up=random(2 * INNER, HIDDEN, scale=0.03),
        down=random(HIDDEN, INNER, scale=0.03),
    )
    return Inputs(
        layer=layer,
        hidden=random(TOKENS, HIDDEN),
        residual=random(TOKENS, HIDDEN),
        attended=random(TOKENS, QUERIES * DIM),
        gated=random(TOKENS, INNER),
        scale=torch.rand(TOKENS, device="cuda", generator=generator) + 0.5,
        positions=torch.arange(TOKENS, device="cuda") % 300,
    )


def check_kernels() -> dict[str, float]:
    """Per kernel the largest error, relative to the largest number, of all numbers of tokens checked."""
    from embedkit.engines.fused.hopper import HopperKernels  # which needs the GPU build

    layer, errors = random_inputs().layer, dict[str, float]()
    for tokens in self_check.TOKENS:
        for name, error in self_check.kernel_errors(HopperKernels(), layer, EPS, tokens).items():
            errors[name] = max(errors.get(name, 0.0), error)
    return errors


def timed_kernels() -> dict[str, Any]:
    """Microseconds of the fused kernels and of the libraries' products alone, and Tflops per second of the products."""
    from embedkit.engines.fused.hopper import HopperKernels

    given, kernels = random_inputs(), HopperKernels()
    layer = given.layer
    flops = {"qkv": layer.qkv, "out": layer.out, "gate and up": layer.gate_up, "down": layer.down}
    calls: dict[str, Callable[[], object]] = {
        "qkv": lambda: kernels.heads_product(
            given.hidden, layer.qkv, given.scale, given.positions, layer.heads, QUERIES, KEYS
        ),
        "gate and up": lambda: kernels.gated_product(given.hidden, layer.gate_up, given.scale),
        "out": lambda: kernels.added_product(given.attended, layer.out, given.residual, EPS),
        "down": lambda: kernels.added_product(given.gated, layer.down, given.residual, EPS),
        "cublas qkv": lambda: given.hidden @ layer.qkv.T,
        "cublas gate and up": lambda: given.hidden @ layer.gate_up.T,
        "cublas out": lambda: given.attended @ layer.out.T,
        "cublas down": lambda: given.gated @ layer.down.T,
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
    given = random_inputs()
    layer = given.layer
    parts = (given.hidden @ layer.qkv.T).split([QUERIES * DIM, KEYS * DIM, KEYS * DIM], 1)
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
