"""Compares kernels with plain torch on a layer's own weights: at each start, and in the benchmark."""

import torch

from embedkit.engines.fused.kernels import Kernels, Layer, Tensor, Texts
from embedkit.engines.fused.reference import ReferenceKernels
from embedkit.errors import EmbedkitError

TOKENS = (3, 130, 1237)
"""Numbers of tokens of a check: of one tile and of several, and not divisible by 4."""
LARGEST_ERROR = 2**-6
"""Of a number, relative to the largest one. bfloat16 rounds by up to 2^-8; two results may be rounded apart."""


def check_kernels(kernels: Kernels, layer: Layer, eps: float) -> None:
    """Raise EmbedkitError naming a kernel that gives other numbers than plain torch on this GPU."""
    for tokens in TOKENS:
        for name, error in kernel_errors(kernels, layer, eps, tokens).items():
            if not error <= LARGEST_ERROR:
                raise EmbedkitError(
                    f"the fused kernel for {name} is wrong on this GPU: off by {error:.3g} of the largest number. Make "
                    "the run with --kernels plain"
                )


def kernel_errors(kernels: Kernels, layer: Layer, eps: float, tokens: int) -> dict[str, float]:
    """Largest error by kernel, relative to the largest number. The layer's inputs are random, of two texts."""
    device, heads = layer.qkv.device, layer.heads
    generator = torch.Generator(device).manual_seed(tokens)

    def drawn(columns: int) -> Tensor:
        return torch.randn(tokens, columns, device=device, generator=generator).to(layer.qkv.dtype)

    plain = ReferenceKernels()
    hidden, residual = drawn(layer.qkv.shape[1]), drawn(layer.qkv.shape[1])
    cut = tokens // 3
    texts = Texts(torch.tensor([0, cut, tokens], dtype=torch.int32, device=device), tokens - cut)
    positions = torch.cat([torch.arange(cut), torch.arange(tokens - cut)]).to(device) % len(heads.cos_sin)
    scale = plain.row_scale(hidden, eps)
    of_heads = (hidden, layer.qkv, scale, positions, heads, heads.queries, heads.keys)
    qkv = plain.heads_product(*of_heads)
    queries, keys, values = qkv.split([heads.queries * heads.dim, heads.keys * heads.dim, heads.keys * heads.dim], 1)
    attended = plain.attend(queries, keys, values, texts, heads)
    last = texts.starts[1:].long() - 1
    adding = (attended, layer.out, residual, eps)
    pairs = {
        "the norm of rows": (kernels.row_scale(hidden, eps), scale),
        "queries, keys and values": (kernels.heads_product(*of_heads), qkv),
        "attention": (kernels.attend(queries, keys, values, texts, heads), attended),
        "attention of last tokens": (kernels.attend_last(queries[last], keys, values, texts, heads), attended[last]),
        "SwiGLU": (each.gated_product(hidden, layer.gate_up, scale) for each in (kernels, plain)),
        "the residual": (each.added_product(*adding)[0] for each in (kernels, plain)),
        "the norm after it": (each.added_product(*adding)[1] for each in (kernels, plain)),
    }
    return {name: _error(*pair) for name, pair in pairs.items()}


def _error(found: Tensor, wanted: Tensor) -> float:
    error: float = ((found.float() - wanted.float()).abs().max() / wanted.float().abs().max()).item()
    return error
