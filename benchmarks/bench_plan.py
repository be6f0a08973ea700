"""The plan of ten million rows, the balance of shards, and the commands of a login node."""

import shutil
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.bench_prepare import OUT
from benchmarks.corpus import FOLDER, demo, model
from benchmarks.fabricate import (
    COST,
    Shape,
    fabricate_config,
    fabricate_parts,
    fabricate_plan,
    fabricate_shards,
    lengths_of,
)
from benchmarks.measure import PYTHON, Figure, timed
from embedkit.documents.checked_file import read_checked
from embedkit.documents.codec import write
from embedkit.documents.schema import PartManifest
from embedkit.prepare.dropped_rows import DROPPED_SCHEMA
from embedkit.prepare.gathered_rows import GatheredRows
from embedkit.prepare.parts import Part, token_counts
from embedkit.prepare.plan import cut_shards
from embedkit.prepare.stage import make_plan
from embedkit.run import RunFolder

TEXTS = "x" * (1 << 20)
MODEL_COST = COST


def bench() -> Iterator[Figure]:
    """Measure plan.json of 10 million rows whose parts exist."""
    shape = Shape(rows=10_000_000, sources=16, text_bytes=0, shards=1000)
    run, config = fabricate_config(FOLDER / "plan", shape)
    manifests = fabricate_parts(run, config, shape, TEXTS)
    started = time.perf_counter()
    write(run.plan, make_plan(run, config, shape.rows, read_parts(run, manifests), MODEL_COST))
    seconds = time.perf_counter() - started
    shutil.rmtree(run.path)
    least = _read_counts(shape)
    yield Figure(
        work="plan for 10 million rows, 1,000 shards",
        value=seconds,
        unit="s",
        target=10.0,
        at_most=True,
        measured=f"{seconds:.1f} s from {len(manifests):,} parts to plan.json",
        rival=f"numpy alone, cumulative sum and search over as many costs: {least:.2f} s",
    )


def read_parts(run: RunFolder, manifests: list[PartManifest]) -> GatheredRows:
    """Read the parts of a run whose vectors are all embedded, as a resumed prepare does, in this process."""
    gathered = GatheredRows(manifests[-1].stop, 1)
    for manifest in manifests:
        tokens = token_counts(read_checked(run.part_data(manifest.part), manifest.extracted), ["combined"])
        gathered.add(Part(manifest, tokens, np.zeros(tokens.shape, bool), pl.DataFrame(schema=DROPPED_SCHEMA)))
    return gathered


def _read_counts(shape: Shape) -> float:
    lengths = lengths_of(shape.rows)
    started = time.perf_counter()
    sums = COST.seconds(lengths).cumsum()
    np.searchsorted(sums, sums[-1] * np.arange(1, shape.shards) / shape.shards)
    return time.perf_counter() - started


def bench_balance() -> Iterator[Figure]:
    """Measure the heaviest shard over the mean by predicted cost, beside equal row counts."""
    data = FOLDER / "runs" / "embed-demo" / "extracted_data.parquet"
    if not data.exists():
        timed(
            [
                *(PYTHON, "-m", "jobs", "prepare", "--dataset", demo(), "--model", model(), "--device", "cuda"),
                *("--full", "--shards", 8, "--output-dir", OUT, "--run-name", "embed-demo"),
            ]
        )
    counted = pl.read_parquet(data, columns=["num_tokens"])["num_tokens"].to_numpy().astype(np.int64)
    for name, tokens in (
        (f"the demo's {len(counted):,} rows", counted),
        ("2,268,178 rows, log-normal", lengths_of(2_268_178)),
    ):
        seconds = COST.seconds(tokens)
        for shards in (8, 64, 512):
            cut = cut_shards(tokens[:, None], COST, shards, 8, 8_000_000)
            ours = heaviest(seconds, [0, *(shard.stop for shard in cut)])
            theirs = heaviest(seconds, [len(tokens) * i // shards for i in range(shards + 1)])
            yield Figure(
                work=f"balance, {shards} shards of {name}",
                value=ours,
                unit="of the mean",
                target=1.01,
                at_most=True,
                measured=f"heaviest shard {ours:.4f} of the mean",
                rival=f"equal row counts: {theirs:.3f}",
            )


def heaviest(seconds: npt.NDArray[np.float64], borders: list[int]) -> float:
    """Divide the largest sum between two borders by their mean."""
    sums = np.array([seconds[start:stop].sum() for start, stop in pairwise(borders)])
    return float(sums.max() / sums.mean())


def bench_commands() -> Iterator[Figure]:
    """Measure submit --dry-run and status of 1,000 shards, import and --help: the fastest of five each."""
    empty = _quickest([PYTHON, "-c", "pass"])
    dry = _quickest(
        [
            *(
                PYTHON,
                "-m",
                "jobs",
                "submit",
                "--dry-run",
                "--scripts",
                "--dataset",
                demo(),
                "--model",
                model(),
                "--full",
            ),
            *(
                "--device",
                "cpu",
                "--shards",
                1000,
                "--profile",
                "h100",
                "--output-dir",
                FOLDER / "runs",
                "--run-name",
                "dry",
            ),
        ]
    )
    shape = Shape(rows=2_268_178, sources=16, text_bytes=0, shards=1000)
    run, config = fabricate_config(FOLDER / "status", shape)
    plan = fabricate_plan(run, config, shape, fabricate_parts(run, config, shape, TEXTS))
    fabricate_shards(run, config, shape, plan, data=False)
    status = _quickest([PYTHON, "-m", "jobs", "status", run.path], ok=(0, 1))
    read_all = _quickest([PYTHON, "-c", READ_ALL, run.path])
    shutil.rmtree(run.path)
    imported = _quickest([PYTHON, "-c", "import embedkit"])
    helped = _quickest([PYTHON, "-m", "jobs", "--help"])
    bare = f"a Python that does nothing: {empty:.3f} s"
    for work, seconds, target, rival in (
        ("submit --dry-run, 1,000 shards of the demo", dry, 10.0, bare),
        (
            "status of 1,000 finished shards",
            status,
            2.0,
            f"json.load of the same manifests, nothing checked: {read_all:.2f} s",
        ),
        ("import of embedkit", imported, 0.5, bare),
        ("embedkit --help", helped, 0.5, bare),
    ):
        yield Figure(
            work=work, value=seconds, unit="s", target=target, at_most=True, measured=f"{seconds:.3f} s", rival=rival
        )


READ_ALL = """
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("embeddings/shards/*/manifest.json"):
    json.loads(path.read_bytes())
"""


def _quickest(command: list[object], ok: tuple[int, ...] = (0,)) -> float:
    return min(timed(command, ok=ok).wall for _ in range(5))
