"""The fused kernels in plain torch: what each must give, and what stands for it where there is no GPU."""

from itertools import pairwise

import torch
import torch.nn.functional as F

from embedkit.engines.fused.kernels import Heads, Texts, by_column


class ReferenceKernels:
    """What `LayerKernels` asks for."""

    def row_scale(self, hidden: torch.Tensor, eps: float) -> torch.Tensor:
        return torch.rsqrt(hidden.float().square().mean(1) + eps)

    def heads_product(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        scale: torch.Tensor,
        positions: torch.Tensor,
        heads: Heads,
        queries: int,
        keys: int,
    ) -> torch.Tensor:
        product = scale[:, None] * (hidden.float() @ weight.float().T)
        parts = list(
            product.unflatten(1, (-1, heads.dim)).split([queries, keys, len(weight) // heads.dim - queries - keys], 1)
        )
        for i, weight_of_norm in enumerate(by_column(heads.weights)):
            parts[i] = rotated(parts[i], weight_of_norm, positions, heads)
        return torch.cat(parts, 1).flatten(1).to(hidden.dtype)

    def gated_product(self, hidden: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        both = scale[:, None] * (hidden.float() @ weight.float().T)
        return (F.silu(both[:, ::2]) * both[:, 1::2]).to(hidden.dtype)

    def added_product(
        self, inputs: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        added = residual.float() + inputs.float() @ weight.float().T
        return added.to(residual.dtype), self.row_scale(added, eps)

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, texts: Texts, heads: Heads
    ) -> torch.Tensor:
        starts = texts.starts.tolist()
        parts = [slice(*pair) for pair in pairwise(starts)]
        each = [tensor.unflatten(1, (-1, heads.dim)) for tensor in (queries, keys, values)]
        return torch.cat([attended(*(tensor[part] for tensor in each)) for part in parts])

    def attend_last(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, texts: Texts, heads: Heads
    ) -> torch.Tensor:
        last = texts.starts[1:].long() - 1
        of_all = keys.new_zeros(len(keys), queries.shape[1])
        of_all[last] = queries
        return self.attend(of_all, keys, values, texts, heads)[last]


def rotated(values: torch.Tensor, weight: torch.Tensor, positions: torch.Tensor, heads: Heads) -> torch.Tensor:
    """Heads, float32 (tokens, heads, dim), normalized and rotated."""
    normed = values * torch.rsqrt(values.square().mean(-1, keepdim=True) + heads.eps) * weight.float()
    first, second = normed.chunk(2, -1)
    cos, sin = (half[:, None] for half in by_column(heads.cos_sin[positions]).float().chunk(2, -1))
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def attended(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Causal attention of one text (tokens, heads, dim) -> (tokens, heads * dim)."""
    group = queries.shape[1] // keys.shape[1]
    q, k, v = (part.transpose(0, 1).float() for part in (queries, keys, values))
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return found.transpose(0, 1).flatten(1).to(queries.dtype)
