"""Seconds per flop over length on one GPU: the curve that `embedkit/prepare/cost.py` predicts with.

    python -m benchmarks.gpu.curve MODEL > curve.json

It measures as `embedkit curve` does, with plain kernels, compiled. Beside it stands what the card's own bf16 matrix
product reaches in the same process. At last a mixture of lengths, whose seconds the curve in use predicts. The table in
`cost.py` has flops over (seconds_a_text - the GPU's row_seconds).
"""

import json
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.gpu.model import SETTINGS
from embedkit.engines import start_engine
from embedkit.forecast.curve import IDS, SECONDS, measure_length, random_texts, timed
from embedkit.prepare.cost import LENGTHS, model_cost


def main(model: Path) -> None:
    """Measure and print one JSON object."""
    matrix_flops = matrix_rate()
    started = time.monotonic()
    engine = start_engine("vllm", model, msgspec.structs.replace(SETTINGS, kernels="plain"))
    start_seconds = time.monotonic() - started
    cost = model_cost(model, "cuda", "vllm")
    rng = np.random.default_rng(0)
    rows = []
    for length in LENGTHS:
        measured = measure_length(engine, rng, length, IDS, SECONDS)
        seconds = measured.seconds_per_text
        flops = cost.flops(np.array([length]))[0]
        rows.append(
            {
                "length": length,
                "texts": measured.texts,
                "seconds_a_text": seconds,
                "tokens_a_second": length / seconds,
                "flops_a_second": flops / seconds,
                "share_of_matrix_rate": flops / seconds / matrix_flops,
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    mixtures = []
    for mean, spread in ((200, 1.0), (2_000, 1.0), (8_000, 0.75)):
        lengths = np.clip(rng.lognormal(np.log(mean), spread, 1_000_000 // mean), 2, 32768).astype(np.int64)
        lengths = -np.sort(-lengths)
        mixtures.append(
            {
                "mean": float(lengths.mean()),
                "texts": len(lengths),
                "seconds": timed(engine, random_texts(rng, lengths)),
                "predicted": float(cost.seconds(lengths).sum()),
                "histogram": np.bincount(np.log2(lengths).astype(int)).tolist(),
            }
        )
        print(mixtures[-1], file=sys.stderr, flush=True)
    print(
        json.dumps(
            {
                "engine": {name: str(getattr(engine.record, name)) for name in engine.record.__struct_fields__},
                "start_seconds": start_seconds,
                "matrix_flops_a_second": matrix_flops,
                "lengths": rows,
                "mixtures": mixtures,
            }
        )
    )
    engine.close()


def matrix_rate() -> float:
    """Flops per second of a bf16 product of two 8192 x 8192 matrices, best of 20."""
    import torch

    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    best = float("inf")
    for _ in range(20):
        torch.cuda.synchronize()
        started = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return float(2 * 8192**3 / best)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
