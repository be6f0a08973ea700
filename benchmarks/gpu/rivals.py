"""The rivals on one GPU: how it was done before, and how fast the same network can be without an engine.

    python -m benchmarks.gpu.rivals replaced|packed MODEL RUN ...

`replaced`: vLLM with its defaults, texts in, lists of floats out. `packed`: the network in plain torch, compiled, over
sequences packed without padding, FlashAttention 3 with lengths, longest first: a ceiling for what waits for nothing.
Each prints JSON: seconds of each corpus once warm, and of the start.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PACKED_TOKENS = 65_536
HEADS, KEY_HEADS, WIDTH, LAYERS = 16, 8, 128, 28

Ids = list[npt.NDArray[np.uint32]]


def token_ids(run: Path) -> Ids:
    """Token ids of a prepared corpus, one array per row."""
    flat = np.load(run / "rival.npz")
    return np.split(flat["ids"], flat["offsets"][1:-1])


def texts(run: Path) -> list[str]:
    """Texts of a prepared corpus, one per row."""
    return list(json.loads((run / "rival.json").read_text()))


def replaced(model: Path) -> Callable[[list[str]], npt.NDArray[np.float32]]:
    """One `LLM` as it was made; embeds texts."""
    import torch
    from vllm import LLM

    llm = LLM(model=str(model), runner="pooling", max_model_len=32_768, dtype="bfloat16", gpu_memory_utilization=0.9)

    def embed(texts: list[str]) -> npt.NDArray[np.float32]:
        outputs = llm.embed(texts)
        vectors: npt.NDArray[np.float32] = torch.tensor([each.outputs.embedding for each in outputs]).numpy()
        return vectors

    return embed


def packed(model: Path) -> Callable[[Ids], npt.NDArray[np.float32]]:
    """The compiled network; embeds ids in batches of PACKED_TOKENS."""
    forward = packed_forward(model)

    def embed(ids: Ids) -> npt.NDArray[np.float32]:
        order = np.argsort([-len(each) for each in ids], kind="stable")
        batches: list[list[int]] = [[]]
        tokens = 0
        for i in order:
            if batches[-1] and tokens + len(ids[i]) > PACKED_TOKENS:
                batches.append([])
                tokens = 0
            batches[-1].append(int(i))
            tokens += len(ids[i])
        # All are launched before the first is fetched, so that nothing waits.
        found = [(batch, forward([ids[i] for i in batch])) for batch in batches]
        vectors = np.empty((len(ids), 1024), np.float32)
        for batch, values in found:
            vectors[batch] = values.cpu().numpy()
        return vectors

    return embed


def layer_weights(weights: dict[str, Any], i: int) -> tuple[Any, ...]:
    """Of layer i, in the order of their use: those of products that have the same input are joined."""
    import torch

    own = {name.removeprefix(f"model.layers.{i}."): value for name, value in weights.items()}
    return (
        own["input_layernorm.weight"],
        torch.cat([own[f"self_attn.{each}_proj.weight"] for each in "qkv"]),
        own["self_attn.q_norm.weight"],
        own["self_attn.k_norm.weight"],
        own["self_attn.o_proj.weight"],
        own["post_attention_layernorm.weight"],
        torch.cat([own["mlp.gate_proj.weight"], own["mlp.up_proj.weight"]]),
        own["mlp.down_proj.weight"],
    )


def packed_forward(model: Path) -> Callable[[Ids], Any]:
    """The network over sequences packed one after another; gives their last tokens' vectors, normalized."""
    import torch
    from safetensors.torch import load_file
    from torch.nn.functional import normalize, pad, silu
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    weights: dict[str, Any] = {}
    for file in sorted(model.glob("*.safetensors")):
        weights |= load_file(file, device="cuda")
    layers = [layer_weights(weights, i) for i in range(LAYERS)]
    table, last_norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
    frequencies = 1.0 / (1e6 ** (torch.arange(0, WIDTH, 2, device="cuda").float() / WIDTH))

    def norm(x: Any, weight: Any) -> Any:
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight

    def rotate(x: Any, cos: Any, sin: Any) -> Any:
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    @torch.compile(dynamic=True)
    def before(x: Any, weight: Any, qkv: Any, q_norm: Any, k_norm: Any, cos: Any, sin: Any) -> Any:
        q, k, v = (norm(x, weight) @ qkv.T).split([HEADS * WIDTH, KEY_HEADS * WIDTH, KEY_HEADS * WIDTH], -1)
        q = rotate(norm(q.view(-1, HEADS, WIDTH), q_norm), cos, sin)
        k = rotate(norm(k.view(-1, KEY_HEADS, WIDTH), k_norm), cos, sin)
        return q, k, v.reshape(-1, KEY_HEADS, WIDTH)

    @torch.compile(dynamic=True)
    def after(x: Any, attended: Any, out: Any, weight: Any, gate_up: Any, down: Any) -> Any:
        x = x + attended.reshape(-1, HEADS * WIDTH) @ out.T
        gate, up = (norm(x, weight) @ gate_up.T).chunk(2, -1)
        return x + (silu(gate) * up) @ down.T

    @torch.inference_mode()
    def forward(batch: Ids) -> Any:
        lengths = torch.tensor([len(ids) for ids in batch], device="cuda")
        ends = pad(lengths.cumsum(0), (1, 0)).int()
        positions = torch.cat([torch.arange(len(ids), device="cuda") for ids in batch]).float()
        angles = positions[:, None] * frequencies
        cos, sin = angles.cos()[:, None].bfloat16(), angles.sin()[:, None].bfloat16()
        longest = max(map(len, batch))
        x = table[torch.from_numpy(np.concatenate(batch).astype(np.int64)).cuda(non_blocking=True)]
        for first, qkv, q_norm, k_norm, out, second, gate_up, down in layers:
            q, k, v = before(x, first, qkv, q_norm, k_norm, cos, sin)
            attended = flash_attn_varlen_func(
                q,
                k,
                v,
                cu_seqlens_q=ends,
                cu_seqlens_k=ends,
                max_seqlen_q=longest,
                max_seqlen_k=longest,
                causal=True,
                fa_version=3,
            )
            x = after(x, attended, out, second, gate_up, down)
        return normalize(norm(x[ends[1:].long() - 1], last_norm).float(), dim=-1)

    return forward


def main() -> None:
    """Embed each run's corpus and print what it took."""
    way, model, runs = sys.argv[1], Path(sys.argv[2]), [Path(run) for run in sys.argv[3:]]
    make, load = {"replaced": (replaced, texts), "packed": (packed, token_ids)}[way]
    corpora: dict[Path, Any] = {run: load(run) for run in runs}
    began = time.perf_counter()
    embed: Callable[[Any], npt.NDArray[np.float32]] = make(model)
    for corpus in corpora.values():
        embed(corpus[: max(len(corpus) // 16, 2)])  # compiles
    start_seconds = time.perf_counter() - began
    seconds = {}
    for run, corpus in corpora.items():
        began = time.perf_counter()
        vectors = embed(corpus)
        seconds[run.name] = time.perf_counter() - began
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(run / f"{way}.npy", vectors)
    print(json.dumps({"start_seconds": start_seconds, "seconds": seconds}))


if __name__ == "__main__":
    main()
