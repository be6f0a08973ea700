"""Several GPUs of one machine by the local queue: `embedkit run` on a corpus whose first half is short rows and whose
second half is long ones, in that order.

    python -m benchmarks.gpu.queue GPUS

Beside it one GPU with all of it, and as many GPUs with shards of equal row counts. Prints JSON.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any

import polars as pl

from benchmarks.gpu.corpus import RUNS, SHAPES, Shape, cut_chats, equal_rows, prepare, python_sources, with_plan
from benchmarks.gpu.model import random_model
from embedkit.records import ShardManifest, read
from embedkit.runfolder import RunFolder

TOKENS = 4_000_000
"""Of each half, for each GPU."""


def main() -> None:
    """Prepare, embed three ways, and print."""
    gpus = int(sys.argv[1])
    model = random_model()
    data = RUNS / f"halves-{gpus}.parquet"
    if not data.exists():
        RUNS.mkdir(parents=True, exist_ok=True)
        sources = python_sources()
        halves = [
            cut_chats(sources, model / "tokenizer.json", Shape(SHAPES[name].mean, SHAPES[name].spread, TOKENS * gpus))
            for name in ("tiny", "long")
        ]
        frame = pl.DataFrame({"messages": [*halves[0], *halves[1]]})
        frame.with_columns(dataset_source=pl.lit("halves")).write_parquet(data)
    prepare(data, model, "one", shards=1)
    prepare(data, model, "cost", shards=gpus, num_gpus=gpus)
    with_plan(RunFolder((RUNS / "cost").absolute()), "rows", equal_rows)
    found = {"gpus": gpus, **{name: embed(name, gpus if name != "one" else 1) for name in ("one", "cost", "rows")}}
    print(json.dumps(found))


def embed(name: str, gpus: int) -> dict[str, Any]:
    """`embedkit run --resume` of a prepared run on the first GPUs; what its manifests say."""
    visible = ",".join(str(i) for i in range(gpus))
    command = [
        sys.executable,
        "-m",
        "jobs",
        "run",
        "--resume",
        "--run-name",
        name,
        "--output-dir",
        str(RUNS.absolute()),
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"CUDA_VISIBLE_DEVICES": visible})
    wall = time.perf_counter() - began
    run = RunFolder((RUNS / name).absolute())
    paths = sorted((run.embeddings / "shards").glob("*/manifest.json"))
    manifests = [read(path, ShardManifest) for path in paths]
    return {
        "wall_seconds": wall,
        "shards": [
            {
                "rows": manifest.stop - manifest.start,
                "tokens": manifest.tokens,
                "embed_seconds": sum(chunk.seconds for chunk in manifest.chunks),
                "phases": manifest.seconds,
                "gpu": manifest.engine.gpu,
            }
            for manifest in manifests
        ],
    }


if __name__ == "__main__":
    main()
