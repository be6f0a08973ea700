"""Several GPUs of one machine by the local queue: `embedkit run` on a corpus whose first half is short rows and whose
second half is long ones, in that order.

    python -m benchmarks.gpu.queue GPUS

Beside it one GPU with all of it, and as many GPUs with shards of equal row counts. Prints JSON.
"""

import json
import os
import subprocess
import sys
from typing import Any

import polars as pl

from benchmarks.gpu.corpus import RUNS, SHAPES, Shape, cut_chats, equal_rows, prepare, python_sources, with_plan
from benchmarks.gpu.model import random_model
from embedkit.documents.codec import read
from embedkit.documents.schema import ShardManifest
from embedkit.run import RunFolder

TOKENS = 6_000_000
"""Of each half, for each GPU: half a minute's work on an H200."""


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
    rows = with_plan(RunFolder((RUNS / "cost").absolute()), "rows", equal_rows)
    found: dict[str, Any] = {"gpus": gpus}
    for name, count in (("one", 1), ("cost", gpus)):
        # As a person would type it: the local queue takes the GPUs that it sees.
        command = ["run", "--resume", "--run-name", name, "--output-dir", str(RUNS.absolute())]
        wait_for([start(command, ",".join(map(str, range(count))))])
        found[name] = {"shards": shards_of(RunFolder((RUNS / name).absolute()))}
    # `run` takes no plan but its own.
    wait_for([start(["embed", str(rows.path), "--shard", str(i)], str(i)) for i in range(gpus)])
    found["rows"] = {"shards": shards_of(rows)}
    print(json.dumps(found))


def start(command: list[str], gpus: str) -> subprocess.Popen[bytes]:
    """Start an embedkit command that sees these GPUs."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpus}
    return subprocess.Popen([sys.executable, "-m", "jobs", *command], stdout=sys.stderr, env=environment)


def wait_for(processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all; exits if one fails."""
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit("embedkit failed; the lines above say why")


def shards_of(run: RunFolder) -> list[dict[str, Any]]:
    """What the manifests of a run's shards say."""
    paths = sorted((run.embeddings / "shards").glob("*/manifest.json"))
    manifests = [read(path, ShardManifest) for path in paths]
    return [
        {
            "rows": manifest.stop - manifest.start,
            "tokens": manifest.tokens,
            "embed_seconds": sum(chunk.seconds for chunk in manifest.chunks),
            "phases": manifest.seconds,
            "gpu": manifest.engine.gpu,
            "compile": manifest.engine.compile,
        }
        for manifest in manifests
    ]


if __name__ == "__main__":
    main()
