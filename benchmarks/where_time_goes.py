"""Two whole runs of the first user, computed: the tables of docs/estimate.md.

    python -m benchmarks.where_time_goes

Nothing is measured here. Seconds of embedding come from the curves of `embedkit/prepare/cost.py`, shards from the real
cut, the rest from the rates below; queueing is left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from benchmarks.fabricate import COST, DIM
from embedkit.documents.matrix_file import ITEM_BYTES
from embedkit.prepare.cost import GPU_MODELS, GpuModel
from embedkit.prepare.plan import CHUNK_TOKENS, SHARD_SECONDS, cut_shards
from jobs.monitor.prediction import seconds_until_done

ROWS, MEAN, LIMIT, TOO_LONG = 2_268_178, 9_700.0, 32_768, 0.002
"""allenai/Dolci-Think-SFT-7B: rows, tokens a row, the model's limit, the share of rows over it (they are dropped)."""

PREPARE_BYTES, PREPARE_RATE = 80e9, 38e6
"""Text, and bytes of it a second a core, as `make bench` measures it on long rows."""
MERGE_BYTES, MERGE_RATE = 28e9, 0.3e9
"""Matrices and texts, and bytes a second."""
PREFLIGHT, START, COLD_START = 118.0, 41.0, 90.0
"""Seconds: preflight, the start of an engine that finds preflight's kernels, of one that finds none."""
CANARY = (8, 2048, 8192)
"""Tokens of its texts, about; twice a shard."""


@dataclass(frozen=True)
class Setup:
    """What a run is given; `shards` None for as many as a plan would have."""

    gpu: GpuModel
    gpus: int
    cores: int = 16
    shards: int | None = None
    shard_seconds: float = SHARD_SECONDS
    preflight: bool = True


@dataclass(frozen=True)
class Run:
    """Seconds of each phase. Those from start to write are of the busiest GPU; `shards` are all of each shard's."""

    prepare: float
    preflight: float
    start: float
    canary: float
    embed: float
    write: float
    merge: float
    shards: Sequence[float]
    gpus: int
    on_busiest: int
    imbalance: float

    @property
    def before(self) -> float:
        """Until shards may start: prepare and preflight run side by side."""
        return max(self.prepare, self.preflight)

    @property
    def on_gpus(self) -> float:
        """From the first shard's start to the last shard's end."""
        return seconds_until_done((), self.shards, self.gpus)

    @property
    def wall(self) -> float:
        """All of it."""
        return self.before + self.on_gpus + self.merge

    @property
    def gpu_hours(self) -> float:
        """Of the shards' tasks and preflight."""
        return (sum(self.shards) + self.preflight) / 3600


def lengths() -> npt.NDArray[np.int64]:
    """Tokens of the kept rows: log-normal, with the data set's mean and its share of rows over the limit."""
    over = NormalDist().inv_cdf(1 - TOO_LONG)
    sigma = over - math.sqrt(over**2 - 2 * math.log(LIMIT / MEAN))
    drawn = np.random.default_rng(0).lognormal(math.log(MEAN) - sigma**2 / 2, sigma, ROWS).astype(np.int64)
    return drawn[(drawn >= 1) & (drawn <= LIMIT)]


def computed(setup: Setup, tokens: npt.NDArray[np.int64]) -> Run:
    """The run, phase by phase."""
    cost = replace(COST, gpu=setup.gpu)
    count = setup.shards
    if count is None:
        count = math.ceil(COST.seconds(tokens).sum() / setup.shard_seconds / setup.gpus) * setup.gpus
    shards = cut_shards(tokens[:, None], COST, count, setup.gpus, CHUNK_TOKENS["cuda"])
    sums = np.concatenate([np.zeros(1), cost.seconds(tokens).cumsum()])
    embed = [float(sums[shard.stop] - sums[shard.start]) for shard in shards]
    canary = 2 * float(cost.seconds(np.array(CANARY)).sum())
    write = [(shard.stop - shard.start) * DIM * ITEM_BYTES / MERGE_RATE for shard in shards]
    waves = math.ceil(len(shards) / setup.gpus)
    start = START if setup.preflight else COLD_START
    busiest = slice(0, None, setup.gpus)  # shards are alike: the GPUs take them in turn
    return Run(
        prepare=PREPARE_BYTES / PREPARE_RATE / setup.cores,
        preflight=PREFLIGHT if setup.preflight else 0.0,
        start=waves * start,
        canary=waves * canary,
        embed=sum(embed[busiest]),
        write=sum(write[busiest]),
        merge=MERGE_BYTES / MERGE_RATE,
        shards=[start + canary + one + wrote for one, wrote in zip(embed, write, strict=True)],
        gpus=setup.gpus,
        on_busiest=waves,
        imbalance=max(embed) / (sum(embed) / len(embed)) - 1,
    )


def print_run(setup: Setup, run: Run) -> None:
    """A run's phases as a Markdown table, with when each begins."""
    each = run.embed / run.on_busiest / 60
    gpus = f"{setup.gpus} {setup.gpu.upper()}s"
    print(f"\n**{gpus}**: {len(run.shards)} shards, {run.on_busiest} a GPU, of {each:.1f} minutes")
    print(f"of embedding each; the heaviest has {100 * run.imbalance:.2f} % more than the mean.\n")
    print("| from minute | what | minutes | of all |\n| ---: | --- | ---: | ---: |")
    at = 0.0
    phases = [
        (f"prepare, one job of {setup.cores} cores; preflight beside it, {PREFLIGHT / 60:.1f} minutes", run.before),
        (f"starts of the engine, {run.on_busiest} of {START:.0f} s: the kernels are preflight's", run.start),
        ("canary, before and after each shard", run.canary),
        ("embedding", run.embed),
        ("writing the ends of the shards", run.write),
        ("waiting for the GPU that ends last", max(run.on_gpus - run.start - run.canary - run.embed - run.write, 0.0)),
        ("merge, one job", run.merge),
    ]
    for what, seconds in phases:
        print(f"| {at / 60:.1f} | {what} | {seconds / 60:.1f} | {100 * seconds / run.wall:.1f} % |")
        at += seconds
    print(f"| {at / 60:.1f} | done: {run.gpu_hours:.1f} GPU hours | {run.wall / 60:.1f} | 100 % |")


def print_others(setups: Sequence[tuple[str, Setup]], tokens: npt.NDArray[np.int64]) -> None:
    """What other choices would do, against the first."""
    print("\n| | shards | minutes | GPU hours |\n| --- | ---: | ---: | ---: |")
    for said, setup in setups:
        run = computed(setup, tokens)
        print(f"| {said} | {len(run.shards)} | {run.wall / 60:.1f} | {run.gpu_hours:.1f} |")


def main() -> None:
    """Print the page's tables."""
    tokens = lengths()
    hours = {gpu: float(replace(COST, gpu=gpu).seconds(tokens).sum()) / 3600 for gpu in GPU_MODELS}
    print(
        f"{len(tokens):,} rows are kept and {ROWS - len(tokens):,} dropped: {tokens.sum() / 1e9:.1f} billion tokens, "
        f"{tokens.mean():,.0f} a row.\nEmbedding alone takes "
        + " and ".join(f"{taken:.1f} hours of one {gpu.upper()}" for gpu, taken in hours.items())
        + "."
    )
    eight, many = Setup("h100", 8), Setup("h200", 64)
    for setup in (eight, many):
        print_run(setup, computed(setup, tokens))
    plan = len(computed(eight, tokens).shards)
    print_others(
        [
            ("8 H100s, as above", eight),
            ("shards of 10 minutes", replace(eight, shard_seconds=600.0)),
            ("shards of 2 hours", replace(eight, shard_seconds=7200.0)),
            (f"{plan + 1} shards, one too many", replace(eight, shards=plan + 1)),
            ("no preflight: every engine compiles for itself", replace(eight, preflight=False)),
            ("prepare on 4 cores", replace(eight, cores=4)),
            ("64 H200s, as above", many),
            ("shards of 10 minutes", replace(many, shard_seconds=600.0)),
            ("65 shards, one too many", replace(many, shards=65)),
            ("no preflight: every engine compiles for itself", replace(many, preflight=False)),
            ("prepare on 4 cores", replace(many, cores=4)),
            ("prepare on 64 cores", replace(many, cores=64)),
        ],
        tokens,
    )


if __name__ == "__main__":
    main()
