"""`--exact` by `embedkit run` on one GPU: the same rows in 1, 4 and 8 shards, and after a kill.

    python -m benchmarks.gpu.exact

Prints JSON: of each run, how many rows have the bytes that they have in the run of one shard.
"""

import contextlib
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from benchmarks.gpu.cluster import compare, engine_of
from benchmarks.gpu.corpus import RUNS, Shape, cut_chats, prepare, python_sources
from benchmarks.gpu.model import random_model
from benchmarks.gpu.queue import start, wait_for
from embedkit.engines import misfit_here
from embedkit.run import RunFolder

SHAPES = (Shape(3.5, 0.8, 50_000), Shape(5.0, 0.8, 400_000), Shape(7.3, 0.9, 600_000), Shape(8.8, 0.85, 1_000_000))
"""Lengths of the rows, which come in random order."""
SHARDS = (4, 8)
KILLED_SHARDS = 4
POLL_SECONDS = 0.1


def main() -> None:
    """Embed, compare, and print."""
    if reason := misfit_here():
        print(json.dumps({"misfit": reason}))
        return
    model = random_model()
    data = make_data(model)
    one = embedded(data, model, 1)
    runs = {f"in {shards} shards": embedded(data, model, shards) for shards in SHARDS}
    runs[f"in {KILLED_SHARDS} shards, killed after the first one"] = killed(data, model)
    found = {name: compare(one, run) for name, run in runs.items()}
    print(json.dumps({"gpu": engine_of(one)["gpu"], "runs": found}))
    if not all(same["metadata_equal"] and same["rows_equal_to_the_bit"] == same["rows"] for same in found.values()):
        sys.exit(1)


def make_data(model: Path) -> Path:
    """Chats of all lengths in random order."""
    RUNS.mkdir(parents=True, exist_ok=True)
    sources = python_sources()
    chats = [chat for shape in SHAPES for chat in cut_chats(sources, model / "tokenizer.json", shape)]
    order = np.random.default_rng(0).permutation(len(chats))
    data = RUNS / "exact.parquet"
    pl.DataFrame({"messages": [chats[i] for i in order], "dataset_source": "sources"}).write_parquet(data)
    return data


def embedded(data: Path, model: Path, shards: int) -> RunFolder:
    """A merged run in so many shards, by one GPU."""
    run = prepared(data, model, f"exact-{shards}", shards)
    wait_for([start(resume(run), "0")])
    return run


def killed(data: Path, model: Path) -> RunFolder:
    """A merged run whose processes were all killed when the first shard was done. The next `run` made the rest."""
    run = prepared(data, model, "exact-killed", KILLED_SHARDS)
    process = start(resume(run), "0")
    while not any(map(Path.exists, map(run.shard_manifest, range(KILLED_SHARDS)))):
        if process.poll() is not None:
            sys.exit("embedkit run ended before a shard was done")
        time.sleep(POLL_SECONDS)
    parent = psutil.Process(process.pid)
    all_of_it = [parent, *parent.children(recursive=True)]
    for one in all_of_it:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(all_of_it)
    if all(run.shard_manifest(shard).exists() for shard in range(KILLED_SHARDS)):
        sys.exit("all shards were done before the kill")
    wait_for([start(resume(run), "0")])
    return run


def prepared(data: Path, model: Path, name: str, shards: int) -> RunFolder:
    """A prepared run with --exact."""
    shutil.rmtree(RUNS / name, ignore_errors=True)
    prepare(data, model, name, shards, 1, "--exact")
    return RunFolder((RUNS / name).absolute())


def resume(run: RunFolder) -> list[str]:
    """The command that embeds and merges what is missing."""
    return ["run", "--resume", "--run-name", run.name, "--output-dir", str(run.path.parent)]


if __name__ == "__main__":
    main()
