"""Where a GPU's time goes with the fused kernels: milliseconds of each kind of kernel, by the lengths of the texts.

    python -m benchmarks.gpu.profile MODEL

Prints a JSON object. Texts are random ids with the lengths of the corpora, and of 1 to 100 tokens.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.gpu.model import SETTINGS
from benchmarks.gpu.sweep import CORPORA, texts
from embedkit.engines import Engine, start_engine

KINDS = {
    "heads": ("HeadsProduct",),
    "SwiGLU": ("GatedSm90",),
    "residual": ("SqReduce",),
    "attention": ("flash", "_attend"),
    "copies": ("Memcpy", "Memset"),
}
"""Kinds of kernels, by parts of their names. The rest is `other`."""
TEXTS = {"tiny": 3000, "short": 250, "long": 60}
VERY_SHORT = (1, 100, 8000)
"""Fewest and most tokens of very short texts, and how many there are."""


def main(model: Path) -> None:
    """Profile each corpus and print."""
    rng = np.random.default_rng(0)
    corpora = {name: texts(rng, *shape)[: TEXTS[name]] for name, shape in CORPORA.items()}
    least, most, count = VERY_SHORT
    lengths = rng.integers(least, most + 1, count).tolist()
    corpora["1 to 100"] = [rng.integers(0, 50_000, length, dtype=np.uint32) for length in lengths]
    engine = start_engine("vllm", model, SETTINGS)
    assert engine.record.compile == "fused", engine.record
    found = {}
    for name, ids in corpora.items():
        ids.sort(key=len, reverse=True)
        engine.embed(ids)
        found[name] = profiled(engine, ids)
        print(name, found[name], file=sys.stderr, flush=True)
    engine.close()
    print(json.dumps({"corpora": found}))


def profiled(engine: Engine, ids: list[npt.NDArray[np.uint32]]) -> dict[str, Any]:
    """Seconds without a profiler, and milliseconds of each kind of kernel with one."""
    from torch.profiler import ProfilerActivity, profile

    began = time.perf_counter()
    engine.embed(ids)
    seconds = time.perf_counter() - began
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        engine.embed(ids)
    milliseconds = dict.fromkeys((*KINDS, "other"), 0.0)
    for event in found.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), "other")
        milliseconds[kind] += event.self_device_time_total / 1000
    return {
        "texts": len(ids),
        "tokens": sum(map(len, ids)),
        "seconds": round(seconds, 3),
        "milliseconds": {kind: round(value, 1) for kind, value in milliseconds.items()},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
