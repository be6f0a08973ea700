"""Compute two whole runs of the first user: the tables of docs/estimate.md.

    python -m benchmarks.where_time_goes

Nothing is measured here. Seconds of embedding come from the curves of `embedkit/prepare/cost.py`, shards from the real
cut, and the rest from the rates below. Queueing is left out.
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

FUSED = replace(COST, compile="fused")
"""As a run of this model has it on these GPUs."""
ROWS, MEAN, LIMIT, TOO_LONG = 2_268_178, 9_700.0, 32_768, 0.002
"""allenai/Dolci-Think-SFT-7B: rows, mean tokens per row, the model's limit, the share of rows over it (dropped)."""

PREPARE_BYTES, PREPARE_RATE = 80e9, 38e6
"""Bytes of text, and bytes per second and core, as `make bench` measures it on long rows."""
MERGE_BYTES, MERGE_RATE = 28e9, 0.3e9
"""Bytes of matrices and texts, and bytes per second."""
PREFLIGHT, START, COLD_START = 118.0, 41.0, 90.0
"""Seconds of preflight, of an engine's start with preflight's kernels, and of a start without kernels."""
CANARY = (8, 2048, 8192)
"""Tokens of the canary's texts, about. It runs twice per shard."""


@dataclass(frozen=True)
class Setup:
    """The setup of a run. `shards` None: as many as a plan would have."""

    gpu: GpuModel
    gpus: int
    cores: int = 16
    shards: int | None = None
    shard_seconds: float = SHARD_SECONDS
    preflight: bool = True


@dataclass(frozen=True)
class Run:
    """Seconds per phase. Those from start to write are of the busiest GPU; `shards` has the total of each shard."""

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
        """Seconds until shards may start. Prepare and preflight run side by side."""
        return max(self.prepare, self.preflight)

    @property
    def on_gpus(self) -> float:
        """Seconds from the first shard's start to the last shard's end."""
        return seconds_until_done((), self.shards, self.gpus)

    @property
    def wall(self) -> float:
        """Seconds of the whole run."""
        return self.before + self.on_gpus + self.merge

    @property
    def gpu_hours(self) -> float:
        """GPU hours of the shards' tasks and preflight."""
        return (sum(self.shards) + self.preflight) / 3600


def lengths() -> npt.NDArray[np.int64]:
    """Tokens of the kept rows: log-normal, with the data set's mean and its share of rows over the limit."""
    over = NormalDist().inv_cdf(1 - TOO_LONG)
    sigma = over - math.sqrt(over**2 - 2 * math.log(LIMIT / MEAN))
    drawn = np.random.default_rng(0).lognormal(math.log(MEAN) - sigma**2 / 2, sigma, ROWS).astype(np.int64)
    return drawn[(drawn >= 1) & (drawn <= LIMIT)]


def computed(setup: Setup, tokens: npt.NDArray[np.int64]) -> Run:
    """Compute the run, phase by phase."""
    cost = replace(FUSED, gpu=setup.gpu)
    count = setup.shards
    if count is None:
        count = math.ceil(FUSED.seconds(tokens).sum() / setup.shard_seconds / setup.gpus) * setup.gpus
    shards = cut_shards(tokens[:, None], FUSED, count, setup.gpus, CHUNK_TOKENS["cuda"])
    sums = np.concatenate([np.zeros(1), cost.seconds(tokens).cumsum()])
    embed = [float(sums[shard.stop] - sums[shard.start]) for shard in shards]
    canary = 2 * float(cost.seconds(np.array(CANARY)).sum())
    write = [(shard.stop - shard.start) * DIM * ITEM_BYTES / MERGE_RATE for shard in shards]
    waves = math.ceil(len(shards) / setup.gpus)
    start = START if setup.preflight else COLD_START
    busiest = slice(0, None, setup.gpus)  # shards have equal cost, so the GPUs take them in turn
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
    """Print a run's phases as a Markdown table with the minute when each begins."""
    each = run.embed / run.on_busiest / 60
    gpus = f"{setup.gpus} {setup.gpu.upper()}s"
    print(f"\n**{gpus}**: {len(run.shards)} shards, {run.on_busiest} per GPU, of {each:.1f} minutes")
    print(f"of embedding each; the heaviest takes {100 * run.imbalance:.2f} % more than the mean.\n")
    print("| from minute | phase | minutes | share |\n| ---: | --- | ---: | ---: |")
    at = 0.0
    phases = [
        (f"prepare, one job on {setup.cores} cores; preflight beside it, {PREFLIGHT / 60:.1f} minutes", run.before),
        (f"engine starts, {run.on_busiest} of {START:.0f} s, with preflight's kernels", run.start),
        ("canary, before and after each shard", run.canary),
        ("embedding", run.embed),
        ("writing the last vectors of each shard", run.write),
        ("waiting for the last GPU", max(run.on_gpus - run.start - run.canary - run.embed - run.write, 0.0)),
        ("merge, one job", run.merge),
    ]
    for what, seconds in phases:
        print(f"| {at / 60:.1f} | {what} | {seconds / 60:.1f} | {100 * seconds / run.wall:.1f} % |")
        at += seconds
    print(f"| {at / 60:.1f} | done: {run.gpu_hours:.1f} GPU hours | {run.wall / 60:.1f} | 100 % |")


def print_others(setups: Sequence[tuple[str, Setup]], tokens: npt.NDArray[np.int64]) -> None:
    """Print what different choices would change."""
    print("\n| | shards | minutes | GPU hours |\n| --- | ---: | ---: | ---: |")
    for label, setup in setups:
        run = computed(setup, tokens)
        print(f"| {label} | {len(run.shards)} | {run.wall / 60:.1f} | {run.gpu_hours:.1f} |")


def main() -> None:
    """Print the page's tables."""
    tokens = lengths()
    hours = {gpu: float(replace(FUSED, gpu=gpu).seconds(tokens).sum()) / 3600 for gpu in GPU_MODELS}
    print(
        f"{len(tokens):,} rows are kept and {ROWS - len(tokens):,} dropped: {tokens.sum() / 1e9:.1f} billion tokens, "
        f"{tokens.mean():,.0f} per row.\nEmbedding alone takes "
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
            ("no preflight: every engine compiles its kernels", replace(eight, preflight=False)),
            ("prepare on 4 cores", replace(eight, cores=4)),
            ("64 H200s, as above", many),
            ("shards of 10 minutes", replace(many, shard_seconds=600.0)),
            ("65 shards, one too many", replace(many, shards=65)),
            ("no preflight: every engine compiles its kernels", replace(many, preflight=False)),
            ("prepare on 4 cores", replace(many, cores=4)),
            ("prepare on 64 cores", replace(many, cores=64)),
        ],
        tokens,
    )


if __name__ == "__main__":
    main()
