"""The engine on this GPU at its edges, against a float32 forward, in other batches, and beside another process.

    python -m benchmarks.gpu.checks

Prints one JSON object; `problems` in it are what was not as it should be, and then the exit code is 1.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.gpu.model import LIMIT, SETTINGS, random_model
from embedkit.engines import Engine, start_engine

EDGES = {
    "exactly the limit": [LIMIT],
    "one under": [LIMIT - 1],
    "nine near the limit at once": [LIMIT - 2] * 9,
    "short before long": [*([5] * 1500), *([LIMIT] * 3), 7, LIMIT - 1],
    "long before short": [LIMIT, LIMIT, *([1] * 1500)],
    "one token each, 5,000 at once": [1] * 5000,
}
TRUTH = (1, 2, 5, 16, 40, 100, 200, 400, 800, 1500, 2500, 4000, 8000, 12_000, 16_000, 24_000, 32_767, LIMIT)
"""Lengths of the texts that a float32 forward embeds, too. Two texts of each."""
LEAST_COSINE = 0.999
COMPANY = (*([1, 20, 384, 385] * 200), *([1500, 4000] * 20), 16_000, LIMIT, LIMIT)
"""Lengths of the texts that are embedded in other batches, too."""
PIECES = (1, 7, 97)
"""Texts of a call."""
FREE_GIB = 6
"""Memory that another process leaves free on the GPU."""

Ids = list[npt.NDArray[np.uint32]]


def main() -> None:
    """Run all checks."""
    model = random_model()
    found: dict[str, Any] = {"problems": []}
    engine = start_engine("vllm", model, SETTINGS)
    found |= {"gpu": engine.record.gpu, "kernels": engine.record.compile}
    rng = np.random.default_rng(0)
    before = [engine.embed([text]) for text in draw(np.random.default_rng(1), (20, 2048, 8192))]
    _edges(engine, rng, found)
    texts = draw(rng, TRUTH * 2)
    vectors = engine.embed(texts)
    again = [engine.embed([text]) for text in draw(np.random.default_rng(1), (20, 2048, 8192))]
    found["canary_moved"] = max(float(np.linalg.norm(a - b)) for a, b in zip(before, again, strict=True))
    _other_batches(engine, rng, found)
    engine.close()
    print(json.dumps(found), file=sys.stderr, flush=True)
    _truth(model, texts, vectors, found)
    _held_gpu(model, found)
    print(json.dumps(found))
    sys.exit(bool(found["problems"]))


def draw(rng: np.random.Generator, lengths: Sequence[int]) -> Ids:
    """Make random ids of these lengths."""
    return [rng.integers(0, 50_000, length, dtype=np.uint32) for length in lengths]


def _edges(engine: Engine, rng: np.random.Generator, found: dict[str, Any]) -> None:
    """Check that every edge finishes with the vectors that its first and last text have alone, or is refused."""
    found["edges"] = {}
    for label, lengths in EDGES.items():
        texts = draw(rng, lengths)
        began = time.monotonic()
        vectors = engine.embed(texts)
        seconds = time.monotonic() - began
        alone = np.concatenate([engine.embed([texts[0]]), engine.embed([texts[-1]])])
        cosines = (alone * vectors[[0, -1]]).sum(axis=1)
        found["edges"][label] = {"seconds": round(seconds, 2), "least_cosine_to_alone": float(cosines.min())}
        if not np.isfinite(vectors).all() or cosines.min() < LEAST_COSINE:
            found["problems"].append(label)
    for label, length in (("one over the limit", LIMIT + 1), ("no tokens", 0)):
        try:
            engine.embed(draw(rng, [3, length, 4]))
            found["problems"].append(f"{label}: not refused")
        except Exception as error:
            found["edges"][label] = f"{type(error).__name__}: {str(error)[:120]}"
        if not np.isfinite(engine.embed(draw(rng, [3, 4]))).all():
            found["problems"].append(f"{label}: the engine is of no use after it")


def _other_batches(engine: Engine, rng: np.random.Generator, found: dict[str, Any]) -> None:
    """Count the texts whose vectors change with what is embedded beside them."""
    texts = draw(rng, COMPANY)
    together = engine.embed(texts)
    order = rng.permutation(len(texts))
    shuffled = np.empty_like(together)
    shuffled[order] = engine.embed([texts[i] for i in order])
    again = {"in another order": shuffled}
    for size in PIECES:
        pieces = [engine.embed(texts[start : start + size]) for start in range(0, len(texts), size)]
        again[f"in calls of {size}"] = np.concatenate(pieces)
    changed = {way: int((vectors != together).any(axis=1).sum()) for way, vectors in again.items()}
    found["other_batches"] = {"texts": len(texts), "changed": changed}
    if found["kernels"] == "fused" and any(changed.values()):
        found["problems"].append("other batches")


def _truth(model: Path, texts: Ids, vectors: npt.NDArray[np.float32], found: dict[str, Any]) -> None:
    """Cosines of the engine, and of a plain bfloat16 forward, to a float32 forward of the same weights."""
    import torch
    from transformers import AttentionInterface, AutoModel

    def attention(
        module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: None, scaling: float, **_: object
    ) -> tuple[torch.Tensor, None]:
        """Causal, with keys and values repeated: in float32 torch has no kernel of flat memory for fewer of them."""
        k, v = (each.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for each in (k, v))
        values = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
        return values.transpose(1, 2).contiguous(), None

    AttentionInterface.register("repeated", attention)
    forwards = {}
    for dtype in (torch.float32, torch.bfloat16):
        network = AutoModel.from_pretrained(model, dtype=dtype, attn_implementation="repeated").to("cuda").eval()
        with torch.inference_mode():
            ends = [network(torch.tensor(ids.astype(np.int64))[None].cuda()).last_hidden_state[0, -1] for ids in texts]
        forwards[dtype] = torch.nn.functional.normalize(torch.stack(ends).float(), dim=-1).cpu().numpy()
        del network
        torch.cuda.empty_cache()
    truth = forwards[torch.float32]
    engine, plain = ((one * truth).sum(axis=1) for one in (vectors, forwards[torch.bfloat16]))
    found["truth"] = {
        "lengths": [len(ids) for ids in texts],
        "vllm_bfloat16": [round(float(cosine), 6) for cosine in engine],
        "transformers_bfloat16": [round(float(cosine), 6) for cosine in plain],
        "least": {"vllm_bfloat16": float(engine.min()), "transformers_bfloat16": float(plain.min())},
    }
    if engine.min() < LEAST_COSINE:
        found["problems"].append("truth")


HOG = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(float(sys.argv[1]) * 2**30), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""
STARTER = """
import sys
from pathlib import Path
from benchmarks.gpu.model import SETTINGS
from embedkit.engines import start_engine
from embedkit.errors import GpuHeld
try:
    start_engine("vllm", Path(sys.argv[1]), SETTINGS).close()
except GpuHeld as error:
    print(error)
"""


def _held_gpu(model: Path, found: dict[str, Any]) -> None:
    """Check that a start on a GPU whose memory another process holds is refused, with the process named."""
    hog = subprocess.Popen(
        [sys.executable, "-c", HOG, str(FREE_GIB)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert hog.stdin is not None
    assert hog.stdout is not None
    hog.stdout.readline()
    done = subprocess.run([sys.executable, "-c", STARTER, str(model)], capture_output=True, text=True)
    hog.stdin.close()
    hog.wait()
    found["held_gpu"] = (done.stdout.strip().splitlines() or [done.stderr[-2000:]])[-1]
    if f"process {hog.pid} " not in found["held_gpu"]:
        found["problems"].append("held GPU")


if __name__ == "__main__":
    main()
