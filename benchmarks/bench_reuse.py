"""The next run of a data set of which one per cent has changed, beside a run of it from scratch."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polars as pl

from benchmarks.bench_prepare import OUT
from benchmarks.corpus import FOLDER, long_rows, tokenizer_only
from benchmarks.measure import PYTHON, Figure, Took, timed
from benchmarks.rounds import in_turns, of_rounds, quotients
from embedkit.documents.codec import read
from embedkit.documents.schema import Plan
from embedkit.run import RunFolder

TEXT_BYTES = 150_000_000
CHANGED = 0.01
CORES = {0, 1}


def bench() -> Iterator[Figure]:
    """Measure prepare and what is left to embed, with one per cent of the rows changed and with none."""
    old, new = long_rows(TEXT_BYTES), _changed(long_rows(TEXT_BYTES))
    _run(old, "reuse-old")
    scratch, reused = in_turns(
        partial(_prepare, new, "reuse-scratch"), partial(_prepare, new, "reuse-new", "--reuse", OUT / "reuse-old")
    )
    plan = read(OUT / "reuse-new" / "plan.json", Plan)
    yield of_rounds(
        quotients(scratch.walls, reused.walls),
        work=f"prepare, {CHANGED:.0%} of {plan.rows:,} long rows changed",
        target=1.0,
        measured=f"{reused.cell}, reading the earlier run included",
        rival=f"from scratch: {scratch.cell}",
    )
    yield Figure(
        work=f"tokens left to embed, {CHANGED:.0%} of the rows changed",
        value=100 * plan.tokens_to_embed / plan.tokens,
        unit="% of the tokens",
        target=1.5,
        at_most=True,
        measured=f"{plan.tokens_to_embed:,} of {plan.tokens:,}",
        rival="from scratch: all",
    )
    for name in ("reuse-scratch", "reuse-new"):
        timed([PYTHON, "-m", "jobs", "run", "--resume", "--run-name", name, "--output-dir", OUT])
    yield Figure(
        work="vectors that differ from a run from scratch (hash engine)",
        value=float(_differing(RunFolder(OUT / "reuse-scratch"), RunFolder(OUT / "reuse-new"))),
        unit="vectors",
        target=0,
        at_most=True,
        measured="the bytes of both matrices, row by row",
        rival="none",
    )
    _run(old, "reuse-same", "--reuse", OUT / "reuse-old")
    same = read(OUT / "reuse-same" / "plan.json", Plan)
    yield Figure(
        work="tokens left to embed, nothing changed",
        value=100 * same.tokens_to_embed / same.tokens,
        unit="% of the tokens",
        target=0,
        at_most=True,
        measured=f"{same.tokens_to_embed:,} of {same.tokens:,}: each task embeds the canary and nothing else",
        rival="from scratch: all",
    )
    for name in ("reuse-old", "reuse-scratch", "reuse-new", "reuse-same"):
        shutil.rmtree(OUT / name)


def _request(data: Path, name: str) -> list[object]:
    shutil.rmtree(OUT / name, ignore_errors=True)
    return [
        *("--dataset", data, "--model", tokenizer_only(), "--engine", "hash", "--max-length", 32768, "--full"),
        *("--shards", 2, "--output-dir", OUT, "--run-name", name),
    ]


def _prepare(data: Path, name: str, *more: object) -> Took:
    return timed([PYTHON, "-m", "jobs", "prepare", *_request(data, name), *more], CORES)


def _run(data: Path, name: str, *more: object) -> None:
    timed([PYTHON, "-m", "jobs", "run", *_request(data, name), *more])


def _changed(data: Path) -> Path:
    """The rows in another order, with a word added to the last message of every hundredth."""
    path = FOLDER / f"changed-{data.name}"
    rows = pl.read_parquet(data)
    is_changed = pl.int_range(pl.len()) % round(1 / CHANGED) == 0
    suffix = pl.when(is_changed).then(pl.lit(" revised")).otherwise(pl.lit(""))
    rows = rows.with_columns(suffix.alias("suffix")).with_row_index()
    messages = rows.explode("messages").with_columns(
        pl.struct(
            pl.col("messages").struct.field("role"),
            pl.col("messages").struct.field("content") + pl.col("suffix"),
        ).alias("messages")
    )
    grouped = messages.group_by("index", maintain_order=True).agg("messages", pl.col("dataset_source").first())
    grouped.drop("index").sample(fraction=1, shuffle=True, seed=0).write_parquet(path, row_group_size=1000)
    return path


def _differing(one: RunFolder, other: RunFolder) -> int:
    """How many rows of two matrices of one shape differ in any bit."""
    from safetensors.numpy import load_file

    a, b = (load_file(run.view_matrix("combined"))["embeddings"] for run in (one, other))
    return int((a != b).any(axis=1).sum())
