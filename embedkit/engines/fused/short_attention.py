"""Attention within short texts, in Triton."""

import torch
import triton
import triton.language as tl

from embedkit.engines.fused.kernels import Heads, Tensor, Texts

TILE_ROWS, TILE_KEYS = 64, 32
"""A row of a tile is a token of one head. With 64 rows nothing spills, however many heads share their keys."""
LOG2_E = 1.4426950408889634


def attend_short(
    queries: Tensor, keys: Tensor, values: Tensor, texts: Texts, heads: Heads, out: Tensor | None = None
) -> Tensor:
    """Causal attention within each text, made for texts of a few tiles.

    out: where to write. Rows before the first text and after the last one stay as they are.

    queries: bfloat16 (n, queries * dim). keys, values: (n, keys * dim). Rows are contiguous.

    Returns:
        bfloat16 (n, queries * dim).
    """
    shape = (len(queries), heads.queries * heads.dim)
    attended = torch.empty(shape, dtype=queries.dtype, device=queries.device) if out is None else out
    group = heads.queries // heads.keys
    _attend[triton.cdiv(texts.longest, TILE_ROWS // group), heads.keys, len(texts.starts) - 1](
        *(queries, keys, values, attended, texts.starts, heads.dim**-0.5 * LOG2_E),
        *(queries.stride(0), keys.stride(0), values.stride(0), attended.stride(0)),
        *(group, heads.dim, TILE_ROWS // group, TILE_KEYS),
        num_warps=4,
        num_stages=3,
    )
    return attended


@triton.jit
def _attend(
    queries, keys, values, attended, starts, scale,
    query_stride, key_stride, value_stride, to_stride,
    GROUP: tl.constexpr, DIM: tl.constexpr, TOKENS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """TOKENS queries of one text, of the GROUP heads that share a head of keys. `scale` includes log2(e)."""
    ROWS: tl.constexpr = TOKENS * GROUP
    TYPE: tl.constexpr = attended.dtype.element_ty
    block = tl.program_id(0)
    head = tl.program_id(1)
    text = tl.program_id(2)  # at most 65,535
    start = tl.load(starts + text).to(tl.int64)
    length = (tl.load(starts + text + 1) - start).to(tl.int32)
    if block * TOKENS >= length:
        return
    # Row i is token i // GROUP and head i % GROUP.
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, DIM)
    token = block * TOKENS + row // GROUP
    is_token = token[:, None] < length
    query_head = (head * GROUP + row % GROUP)[:, None] * DIM
    place = queries + (start + token)[:, None] * query_stride + query_head + dim[None, :]
    query = tl.load(place, mask=is_token, other=0.0)
    # Softmax over tiles of keys, with the largest score so far taken out of the exponents.
    largest = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    summed = tl.zeros((ROWS, DIM), tl.float32)
    for first in range(0, tl.minimum(length, (block + 1) * TOKENS), KEYS):
        other = first + tl.arange(0, KEYS)
        is_key = other[:, None] < length
        key = keys + (start + other)[:, None] * key_stride + head * DIM + dim[None, :]
        scores = tl.dot(query, tl.load(key, mask=is_key, other=0.0).T)
        scores = tl.where(token[:, None] >= other[None, :], scores * scale, -float("inf"))
        now = tl.maximum(largest, tl.max(scores, 1))
        share = tl.exp2(scores - now[:, None])
        before = tl.exp2(largest - now)
        total = total * before + tl.sum(share, 1)
        value = values + (start + other)[:, None] * value_stride + head * DIM + dim[None, :]
        summed = tl.dot(share.to(TYPE), tl.load(value, mask=is_key, other=0.0), summed * before[:, None])
        largest = now
    target = attended + (start + token)[:, None] * to_stride + query_head + dim[None, :]
    tl.store(target, (summed / total[:, None]).to(TYPE), mask=is_token)
