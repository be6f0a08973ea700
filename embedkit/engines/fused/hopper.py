"""The kernels on a Hopper GPU: products by quack-kernels, attention by FlashAttention 3, of short texts in Triton."""

import math
from typing import NamedTuple

import torch
from quack.gemm_norm_act import gemm_norm_act_fn
from quack.gemm_sq_reduce import gemm_sq_reduce
from quack.rms_final_reduce import rms_final_reduce
from vllm.vllm_flash_attn import flash_attn_varlen_func

from embedkit.engines.fused.heads_product import heads_product
from embedkit.engines.fused.kernels import SHORT_TOKENS, Heads, Tensor, Texts
from embedkit.engines.fused.short_attention import attend_short


class Tile(NamedTuple):
    """How a product is cut: tile of the result, clusters of blocks that share loads, two tiles in turns (ping-pong)."""

    rows: int
    columns: int
    cluster_rows: int
    cluster_columns: int
    pingpong: bool


GATED = Tile(128, 192, 1, 2, True)
ADDED = Tile(192, 128, 1, 2, True)
"""The fastest of 24 with the shapes of Qwen3-Embedding-0.6B and 65,536 tokens (H200), and of gate and up the clusters
that are fastest in whole layers."""


class HopperKernels:
    """What `LayerKernels` asks for."""

    def row_scale(self, hidden: Tensor, eps: float) -> Tensor:
        # Not torch's mean: the order in which it sums a row depends on the number of rows.
        return rms_final_reduce(hidden.float().square(), scale=1 / hidden.shape[1], eps=eps)

    def heads_product(
        self, hidden: Tensor, weight: Tensor, scale: Tensor, positions: Tensor, heads: Heads, queries: int, keys: int
    ) -> Tensor:
        return heads_product(hidden, weight, scale, positions, heads, queries, keys)

    def gated_product(self, hidden: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        rows = len(hidden)
        gated = torch.empty((rows, len(weight) // 2), dtype=hidden.dtype, device=hidden.device)
        aligned = scale.as_strided((1, rows), (math.ceil(rows / 4) * 4, 1))  # quack wants this; no row follows
        gemm_norm_act_fn(
            *(hidden[None], weight[None], None, None, gated[None], None, "swiglu"),
            *(GATED.rows, GATED.columns, GATED.cluster_rows, GATED.cluster_columns),
            pingpong=GATED.pingpong,
            colvec=aligned,
        )
        return gated

    def added_product(self, inputs: Tensor, weight: Tensor, residual: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        rows, columns = residual.shape
        added = torch.empty_like(residual)
        squares = torch.empty((rows, math.ceil(columns / ADDED.columns)), dtype=torch.float32, device=added.device)
        gemm_sq_reduce(
            *(inputs[None], weight[None], added[None], residual[None], squares[None], None),
            *(ADDED.rows, ADDED.columns, ADDED.cluster_rows, ADDED.cluster_columns),
            pingpong=ADDED.pingpong,
        )
        return added, rms_final_reduce(squares, scale=1 / columns, eps=eps)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, texts: Texts, heads: Heads) -> Tensor:
        if texts.long_texts is None or texts.long_tokens is None:
            return attend_flash(queries, keys, values, texts, heads)
        attended = torch.empty((len(queries), heads.queries * heads.dim), dtype=queries.dtype, device=queries.device)
        if texts.long_texts:
            front = Texts(texts.starts[: texts.long_texts + 1], texts.longest)
            of_long = slice(texts.long_tokens)
            attend_flash(queries[of_long], keys[of_long], values[of_long], front, heads, out=attended[of_long])
        if texts.long_texts < len(texts.starts) - 1:
            rest = Texts(texts.starts[texts.long_texts :], min(texts.longest, SHORT_TOKENS))
            attend_short(queries, keys, values, rest, heads, out=attended)
        return attended

    def attend_last(self, queries: Tensor, keys: Tensor, values: Tensor, texts: Texts, heads: Heads) -> Tensor:
        one_each = torch.arange(len(texts.starts), dtype=torch.int32, device=queries.device)
        return attend_flash(queries, keys, values, texts, heads, Texts(one_each, 1))


def attend_flash(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    texts: Texts,
    heads: Heads,
    query_texts: Texts | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Attention by FlashAttention 3.

    query_texts: the rows of `queries` of each text, if it has fewer than keys. out: where to write.
    """
    query_texts = texts if query_texts is None else query_texts
    shape = (len(queries), heads.queries * heads.dim)
    attended = torch.empty(shape, dtype=queries.dtype, device=queries.device) if out is None else out
    flash_attn_varlen_func(
        q=queries.unflatten(1, (heads.queries, heads.dim)),
        k=keys.unflatten(1, (heads.keys, heads.dim)),
        v=values.unflatten(1, (heads.keys, heads.dim)),
        out=attended.unflatten(1, (heads.queries, heads.dim)),
        cu_seqlens_q=query_texts.starts,
        cu_seqlens_k=texts.starts,
        max_seqlen_q=query_texts.longest,
        max_seqlen_k=texts.longest,
        causal=True,
        fa_version=3,
        num_splits=1,  # splitting takes memory that grows with the texts
    )
    return attended
