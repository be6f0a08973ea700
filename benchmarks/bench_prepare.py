"""prepare end to end (read, extract, count with the genuine tokenizer, write), and embed without a GPU."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.corpus import FOLDER, demo, long_rows, model, text_bytes, tokenizer_only
from benchmarks.measure import PYTHON, Figure, Took, timed
from embedkit.documents.codec import read
from embedkit.documents.schema import Plan

OUT = FOLDER / "runs"
ONE, TWO = {0}, {0, 1}
H200_TOKENS = 233_000
"""Tokens per second of one H200 on long rows (vLLM 0.24.0, bf16, Qwen3-Embedding-0.6B's shapes)."""
RIVAL_ROWS = {"long": 300, "demo": 20_000}
BOUND_ROWS = {"long": 1_500, "demo": 200_000}
GIB = 2**30
WHY_NOT_TWICE = (
    "Each worker loads two tokenizers, 2.5 s on a core, and parts of 128 MB do not divide evenly among few workers"
)


def prepare(data: Path, cpus: set[int], name: str) -> Took:
    """Run one whole `embedkit prepare` on some CPUs."""
    shutil.rmtree(OUT / name, ignore_errors=True)
    return timed(
        [
            *(PYTHON, "-m", "jobs", "prepare", "--dataset", data, "--model", tokenizer_only(), "--engine", "hash"),
            *("--max-length", 32768, "--full", "--shards", 8, "--output-dir", OUT, "--run-name", name),
        ],
        cpus,
    )


def rival(data: Path, rows: int, *options: str) -> dict[str, float]:
    """Run the replaced filter on the first rows, on one core."""
    tokenizer = tokenizer_only() / "tokenizer.json"
    command = [PYTHON, "-m", "benchmarks.replaced", "filter", data, tokenizer, "--rows", rows, *options]
    return timed(command, ONE).json


def bench() -> Iterator[Figure]:
    """Measure prepare on both corpora, on one core and two."""
    small = long_rows(300_000_000)
    for name, data in (("long", long_rows()), ("demo", demo())):
        megabytes = text_bytes(data) / 1e6
        one, two = prepare(data, ONE, f"{name}-1"), prepare(data, TWO, f"{name}-2")
        rows = read(OUT / f"{name}-1" / "plan.json", Plan).rows
        what = f"prepare, {rows:,} {'long rows' if name == 'long' else 'rows of the demo'}"
        for label, options, count in (
            ("each text encoded alone", (), RIVAL_ROWS[name]),
            ("only texts over 2 characters per token encoded", ("--bound",), BOUND_ROWS[name]),
        ):
            theirs = rival(data, count, *options)
            speed = theirs["bytes"] / 1e6 / theirs["seconds"]
            yield Figure(
                work=f"{what}, one core",
                value=megabytes / one.wall / speed,
                target=25.0 if name == "long" and not options else None,
                measured=f"{megabytes / one.wall:.1f} MB/s: {megabytes:,.0f} MB of text in {one.wall:.1f} s",
                rival=f"the replaced way, {label}: {speed:.2f} MB/s on the first {count:,} rows",
                note="the rival keeps rows that are too long: digits, Chinese, emoji" if options else "",
            )
        yield Figure(
            work=f"{what}, memory of the largest process",
            value=max(one.peak_bytes, two.peak_bytes) / GIB,
            unit="GiB",
            target=1.5,
            at_most=True,
            measured=f"{one.peak_bytes / GIB:.2f} GiB with one worker, {two.peak_bytes / GIB:.2f} with two",
            rival="none",
        )
        if name == "long":
            less_one, less_two = prepare(small, ONE, "small-1"), prepare(small, TWO, "small-2")
            yield Figure(
                work=f"{what}, two cores against one, as data grow",
                value=(one.wall - less_one.wall) / (two.wall - less_two.wall) / 2,
                target=0.9,
                measured=f"{two.wall - less_two.wall:.1f} s more for 3.3 times the text",
                note=WHY_NOT_TWICE,
                rival=f"twice one core, which took {one.wall - less_one.wall:.1f} s more",
            )
        yield Figure(
            work=f"{what}, two cores against one, start included",
            value=one.wall / two.wall / 2,
            target=None if name == "long" else 0.9,
            measured=f"{two.wall:.1f} s",
            rival=f"twice one core, which took {one.wall:.1f} s",
            note=WHY_NOT_TWICE,
        )


def bench_embed() -> Iterator[Figure]:
    """Measure embed with an engine that takes no time, on one core."""
    for name, data in (("long", long_rows(300_000_000)), ("demo", demo())):
        shutil.rmtree(OUT / f"embed-{name}", ignore_errors=True)
        command = [
            *(PYTHON, "-m", "jobs", "prepare", "--dataset", data, "--model", model(), "--device", "cuda", "--full"),
            *("--shards", 8, "--output-dir", OUT, "--run-name", f"embed-{name}"),
        ]
        timed(command)
        shards = range(8) if name == "long" else range(1)
        took = timed([PYTHON, "-m", "benchmarks.null_embed", OUT / f"embed-{name}", *shards], ONE)
        output = took.json
        speed = output["tokens"] / output["seconds"]
        yield Figure(
            work=f"embed without the GPU, {output['rows']:,} {name} rows, per core",
            value=speed / H200_TOKENS,
            target=20.0 if name == "long" else None,
            measured=f"{speed / 1e6:.1f} million tokens/s: {output['tokens']:,} in {output['seconds']:.1f} s",
            rival=f"one H200 on long rows: {H200_TOKENS:,} tokens/s",
            note="" if name == "long" else "on rows this short an H200 is faster, about 350,000 tokens/s",
        )
