"""What the fused model asks of its kernels. `hopper` has them for GPUs; tests have them in plain torch."""

from typing import Any, NamedTuple, Protocol

Tensor = Any
"""A torch.Tensor. Importing this module does not load torch."""


SHORT_TOKENS = 384
"""Texts of at most this many tokens have an attention kernel of their own. So the kernel follows from the text alone,
and not from the batch: a text has the same vector to the bit in every batch."""


class Texts(NamedTuple):
    """The texts of a batch, one behind the other.

    starts: where each begins, then the number of tokens, int32 (texts + 1,), on the device.
    longest: tokens of the longest. long_texts, long_tokens: how many texts are longer than SHORT_TOKENS, and their
    tokens, if these are the first texts. None if they may be anywhere: then all are taken for long.
    """

    starts: Tensor
    longest: int
    long_texts: int | None = None
    long_tokens: int | None = None


class Heads(NamedTuple):
    """The heads of a layer, and how they are normalized and rotated.

    queries, keys: how many heads; there are as many of values as of keys. weights: of the queries' RMS norm and of the
    keys' (2, dim). cos_sin: cosines, then sines of each position (positions, dim). Both as `by_thread` orders them.
    """

    queries: int
    keys: int
    dim: int
    weights: Tensor
    eps: float
    cos_sin: Tensor


def by_thread(table: Tensor) -> Tensor:
    """The columns of each row (rows, dim) in another order: what a thread of the heads' product reads lies together.

    Of four threads, thread t reads the columns `8 j + 2 t` and the next, first of the one half, then of the other.
    """
    ordered: Tensor = table.unflatten(1, (2, -1, 4, 2)).permute(0, 3, 1, 2, 4).flatten(1)
    return ordered


def by_column(table: Tensor) -> Tensor:
    """What `by_thread` ordered, in its original order (rows, dim)."""
    ordered: Tensor = table.unflatten(1, (4, 2, -1, 2)).permute(0, 2, 3, 1, 4).flatten(1)
    return ordered


class Layer(NamedTuple):
    """Weights of a layer as the kernels take them: bfloat16 (out, in), with the norms before them multiplied in.

    name: of its attention in vLLM. gate_up: the rows of gate and up in turns.
    """

    name: str
    heads: Heads
    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class LayerKernels(Protocol):
    """All tensors of tokens are bfloat16 (tokens, n), rows contiguous; `scale` is 1 / rms, float32 (tokens,)."""

    def row_scale(self, hidden: Tensor, eps: float) -> Tensor:
        """1 / rms of each row."""
        ...

    def heads_product(
        self, hidden: Tensor, weight: Tensor, scale: Tensor, positions: Tensor, heads: Heads, queries: int, keys: int
    ) -> Tensor:
        """`scale * (hidden @ weight.T)`; the first `queries` heads and the next `keys` ones are normalized and rotated.

        weight: (out, in), times the norm's weight. positions: of the tokens in their texts, int64 (tokens,).
        """
        ...

    def gated_product(self, hidden: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        """`silu(gate) * up` of `scale * (hidden @ weight.T)`, whose even columns are gate and whose odd ones are up."""
        ...

    def added_product(self, inputs: Tensor, weight: Tensor, residual: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """`residual + inputs @ weight.T`, and 1 / rms of its rows."""
        ...

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, texts: Texts, heads: Heads) -> Tensor:
        """Causal attention within each text (tokens, queries * dim)."""
        ...

    def attend_last(self, queries: Tensor, keys: Tensor, values: Tensor, texts: Texts, heads: Heads) -> Tensor:
        """Attention of each text's last token. queries: of these tokens (texts, queries * dim)."""
        ...
