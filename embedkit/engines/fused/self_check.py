"""Compares kernels with plain torch on a layer's own weights: at each start, and in the benchmark.

All calls of all layers have the shapes of these, or of fewer or more tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from embedkit.engines.fused.kernels import SHORT_TOKENS, Heads, Layer, LayerKernels, Tensor, Texts
from embedkit.engines.fused.reference import ReferenceKernels
from embedkit.errors import EmbedkitError

TOKENS = (1, 3, 130, 1237)
"""Numbers of tokens of a check: of one tile and of several, and not divisible by 4."""
LARGEST_ERROR = 2**-6
"""Of a number, relative to the largest one. bfloat16 rounds by up to 2^-8; two results may be rounded apart."""

TEXT_TOKENS = (2000, SHORT_TOKENS + 1, SHORT_TOKENS, 130, 20, 3, 1)
"""Texts that are embedded together and alone: of both kernels for attention, and of one tile and of several."""

Embed = Callable[[Sequence[npt.NDArray[np.uint32]]], npt.NDArray[np.float32]]


def check_exact(embed: Embed, max_length: int) -> None:
    """Raise EmbedkitError if a text has another vector when it is embedded alone.

    embed: of an engine. max_length: tokens of the longest text that it takes.
    """
    texts = [np.arange(min(tokens, max_length), dtype=np.uint32) % 97 for tokens in TEXT_TOKENS]
    for text, together in zip(texts, embed(texts), strict=True):
        if not np.array_equal(embed([text])[0], together):
            raise EmbedkitError(
                f"--exact: on this GPU a text of {len(text)} tokens has another vector alone than beside other texts. "
                "Make the run without --exact, and report this"
            )


def check_kernels(kernels: LayerKernels, layer: Layer, eps: float) -> None:
    """Raise EmbedkitError naming a kernel that gives other numbers than plain torch on this GPU."""
    for tokens in TOKENS:
        for name, error in kernel_errors(kernels, layer, eps, tokens).items():
            if not error <= LARGEST_ERROR:
                raise EmbedkitError(
                    f"the fused kernel for {name} is wrong on this GPU: off by {error:.3g} of the largest number. Make "
                    "the run with --kernels plain"
                )


def kernel_errors(kernels: LayerKernels, layer: Layer, eps: float, tokens: int) -> dict[str, float]:
    """Largest error by kernel, relative to the largest number. The layer's inputs are random, of two texts."""
    device, heads = layer.qkv.device, layer.heads
    generator = torch.Generator(device).manual_seed(tokens)

    def drawn(columns: int) -> Tensor:
        return torch.randn(tokens, columns, device=device, generator=generator).to(layer.qkv.dtype)

    plain = ReferenceKernels()
    hidden, residual = drawn(layer.qkv.shape[1]), drawn(layer.qkv.shape[1])
    cut = min(tokens // 3, SHORT_TOKENS)
    long_tokens = tokens - cut if tokens - cut > SHORT_TOKENS else 0
    starts = [0, tokens - cut, tokens] if cut else [0, tokens]  # the longer text first
    on_device = torch.tensor(starts, dtype=torch.int32, device=device)
    texts = Texts(on_device, tokens - cut, int(long_tokens > 0), long_tokens)
    positions = torch.cat([torch.arange(tokens - cut), torch.arange(cut)]).to(device) % len(heads.cos_sin)
    last = texts.starts[1:].long() - 1
    scale = plain.row_scale(hidden, eps)
    of_queries, of_keys = heads.queries * heads.dim, heads.keys * heads.dim
    at = (hidden, scale, positions)
    of_last = tuple(tensor[last] for tensor in at)
    qkv = _projected(plain, layer.qkv, at, heads, heads.queries, heads.keys)
    queries, keys, values = qkv.split([of_queries, of_keys, of_keys], 1)
    attended = plain.attend(queries, keys, values, texts, heads)
    gated = plain.gated_product(hidden, layer.gate_up, scale)
    both = (kernels, plain)
    pairs = {
        "the norm of rows": (each.row_scale(hidden, eps) for each in both),
        "queries, keys and values": (_projected(kernels, layer.qkv, at, heads, heads.queries, heads.keys), qkv),
        "queries": (_projected(each, layer.qkv[:of_queries], of_last, heads, heads.queries, 0) for each in both),
        "keys and values": (_projected(each, layer.qkv[of_queries:], at, heads, 0, heads.keys) for each in both),
        "attention": (kernels.attend(queries, keys, values, texts, heads), attended),
        "attention of last tokens": (kernels.attend_last(queries[last], keys, values, texts, heads), attended[last]),
        "SwiGLU": (kernels.gated_product(hidden, layer.gate_up, scale), gated),
        "the output": (each.added_product(attended, layer.out, residual, eps)[0] for each in both),
        "the MLP": (each.added_product(gated, layer.down, residual, eps)[0] for each in both),
        "the norm after them": (each.added_product(gated, layer.down, residual, eps)[1] for each in both),
    }
    return {name: _error(*pair) for name, pair in pairs.items()}


def _projected(
    kernels: LayerKernels, weight: Tensor, at: tuple[Tensor, ...], heads: Heads, queries: int, keys: int
) -> Tensor:
    """The product with heads. at: hidden states, their scale and positions."""
    hidden, scale, positions = at
    return kernels.heads_product(hidden, weight, scale, positions, heads, queries, keys)


def _error(found: Tensor, wanted: Tensor) -> float:
    error: float = ((found.float() - wanted.float()).abs().max() / wanted.float().abs().max()).item()
    return error
