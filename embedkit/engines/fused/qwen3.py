"""Qwen3 inside vLLM with fused kernels: a subclass of vLLM's own model, which loads the weights.

Registered with vLLM under ARCHITECTURE. For one GPU and texts that are embedded whole, in one step each.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from vllm import ModelRegistry
from vllm.forward_context import get_forward_context
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from embedkit.engines.fused.kernels import Heads, Layer, LayerKernels, Tensor, Texts, by_thread
from embedkit.engines.fused.self_check import check_kernels

ARCHITECTURE = "EmbedkitQwen3ForCausalLM"
MOST_TEXTS = 1024
"""Texts of vLLM's trial run. Real batches have at most `max_sequences`."""


class FusedQwen3(Qwen3ForCausalLM):  # type: ignore[misc]
    """vLLM's Qwen3 with another forward pass."""

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load them as vLLM does, and bring them into the form that the kernels take, in place."""
        loaded: set[str] = super().load_weights(weights)
        attention = self.model.layers[0].self_attn
        cos_sin = by_thread(attention.rotary_emb.cos_sin_cache.to(attention.qkv_proj.weight.dtype))
        self._layers = [fused_layer(layer, cos_sin) for layer in self.model.layers]
        self._kernels: LayerKernels | None = None
        return loaded

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of the last layer (tokens, hidden), for poolings other than that of the last token."""
        hidden = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        hidden, _ = self._layers_of_all(hidden, positions, self._texts(len(hidden)), self._layers)
        normed: Tensor = self.model.norm(hidden)
        return normed

    def last_states(self, input_ids: Tensor, positions: Tensor, texts: Texts) -> Tensor:
        """Hidden states of the last token of each text, without vLLM's scheduler, float32 (texts, hidden).

        Of the last layer only keys and values of all tokens are needed.

        input_ids: int32 (tokens,). positions: of the tokens in their texts, int64 (tokens,).
        """
        hidden = self.model.embed_tokens(input_ids)
        hidden, scale = self._layers_of_all(hidden, positions, texts, self._layers[:-1])
        layer, kernels, eps = self._layers[-1], self._checked_kernels(), self.config.rms_norm_eps
        heads, last = layer.heads, texts.starts[1:].long() - 1
        of_queries, of_both = layer.qkv.split([heads.queries * heads.dim, 2 * heads.keys * heads.dim])
        places = positions[last]
        queries = kernels.heads_product(hidden[last], of_queries, scale[last], places, heads, heads.queries, 0)
        keys, values = kernels.heads_product(hidden, of_both, scale, positions, heads, 0, heads.keys).chunk(2, 1)
        attended = kernels.attend_last(queries, keys, values, texts, heads)
        of_last, scale = _rest(kernels, layer, attended, hidden[last], eps)
        return of_last.float() * scale[:, None] * self.model.norm.weight.float()

    def _layers_of_all(
        self, hidden: Tensor, positions: Tensor, texts: Texts, layers: Sequence[Layer]
    ) -> tuple[Tensor, Tensor]:
        """Hidden states of all tokens after these layers, and 1 / rms of each."""
        kernels, eps = self._checked_kernels(), self.config.rms_norm_eps
        scale = kernels.row_scale(hidden, eps)
        for layer in layers:
            heads = layer.heads
            qkv = kernels.heads_product(hidden, layer.qkv, scale, positions, heads, heads.queries, heads.keys)
            of_keys = heads.keys * heads.dim
            queries, keys, values = qkv.split([heads.queries * heads.dim, of_keys, of_keys], 1)
            attended = kernels.attend(queries, keys, values, texts, heads)
            hidden, scale = _rest(kernels, layer, attended, hidden, eps)
        return hidden, scale

    def _checked_kernels(self) -> LayerKernels:
        """The kernels. At the first call, when vLLM has found no weight missing, they are compared with plain torch."""
        if self._kernels is None:
            self._kernels = load_kernels()
            check_kernels(self._kernels, self._layers[0], self.config.rms_norm_eps)
        return self._kernels

    def _texts(self, tokens: int) -> Texts:
        """The texts of this batch. In vLLM's trial run for memory, which has none: as long as the model takes."""
        found = get_forward_context().attn_metadata
        if found is None:
            limit = max(self.vllm_config.model_config.max_model_len, tokens // MOST_TEXTS + 1)
            starts = torch.arange(0, tokens + limit, limit, dtype=torch.int32, device=self._layers[0].qkv.device)
            return Texts(starts.clamp(max=tokens), min(tokens, limit))
        metadata = found[self._layers[0].name]
        return Texts(metadata.query_start_loc, metadata.max_query_len)


def _rest(kernels: LayerKernels, layer: Layer, attended: Tensor, hidden: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """What follows attention: the output's product and the MLP, each added to the residual."""
    hidden, scale = kernels.added_product(attended, layer.out, hidden, eps)
    gated = kernels.gated_product(hidden, layer.gate_up, scale)
    return kernels.added_product(gated, layer.down, hidden, eps)


def fused_layer(layer: Any, cos_sin: Tensor) -> Layer:
    """The weights of one of vLLM's layers, changed in place: two copies would not fit beside the largest models.

    cos_sin: of `Heads`, the same for all layers.
    """
    attention, mlp = layer.self_attn, layer.mlp
    qkv, gate_up = attention.qkv_proj.weight.data, mlp.gate_up_proj.weight.data
    _multiply_columns(qkv, layer.input_layernorm.weight.data)
    _multiply_columns(gate_up, layer.post_attention_layernorm.weight.data)
    gate_up.copy_(torch.stack(gate_up.chunk(2), 1).flatten(0, 1))  # gate, up, gate, up
    heads = Heads(
        queries=attention.num_heads,
        keys=attention.num_kv_heads,
        dim=attention.head_dim,
        weights=by_thread(torch.stack([attention.q_norm.weight.data, attention.k_norm.weight.data])),
        eps=attention.q_norm.variance_epsilon,
        cos_sin=cos_sin,
    )
    out, down = attention.o_proj.weight.data, mlp.down_proj.weight.data
    return Layer(attention.attn.layer_name, heads, qkv, out, gate_up, down)


def _multiply_columns(weight: Tensor, factors: Tensor) -> None:
    """Multiply a matrix (out, in) by a norm's weight (in,), rounded once."""
    weight.copy_(weight.float() * factors.float())


def load_kernels() -> LayerKernels:
    """The kernels of this machine's GPU."""
    from embedkit.engines.fused.hopper import HopperKernels

    return HopperKernels()


def register() -> None:
    """Make the model known to vLLM under ARCHITECTURE."""
    ModelRegistry.register_model(ARCHITECTURE, FusedQwen3)
