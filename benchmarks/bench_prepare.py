"""prepare end to end (read, extract, count with the genuine tokenizer, write), and embed without a GPU."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.corpus import FOLDER, demo, long_rows, model, text_bytes, tokenizer_only
from benchmarks.measure import GIB, PYTHON, Figure, Took, timed
from benchmarks.rounds import Side, in_turns, of_rounds, quotients, seconds
from embedkit.documents.codec import read
from embedkit.documents.schema import Plan
from embedkit.run import RunFolder

OUT = FOLDER / "runs"
ONE, TWO = {0}, {0, 1}
H200_TOKENS = 233_000
"""Tokens per second of one H200 on long rows (vLLM 0.24.0, bf16, Qwen3-Embedding-0.6B's shapes)."""
RIVAL_ROWS = {"long": 300, "demo": 20_000}
BOUND_ROWS = {"long": 1_500, "demo": 200_000}
SMALL_BYTES = 300_000_000
"""Text of the smaller corpus of long rows."""
WHY_NO_SHORTCUT = (
    "5 s are start, imports and the load of two tokenizers, which the rival's time leaves out. CPU time of a row in a "
    "profile: 4 us to read it, 3 to split the chat, 4 to tokenize, 4 for its two keys, 2 to write, 1.5 for the audit. "
    "The rival reads and splits"
)
WHY_NOT_TWICE = (
    "in a profile, 1.2 s of imports and 2 s of loading tokenizers once for all workers are work of one core, and 0.5 s "
    "of imports are in each worker. With both cores busy the same work takes 5 to 15 % more CPU time, as that of two "
    "independent runs does: see the line on what the machine allows"
)


def prepare(data: Path, cpus: set[int], name: str) -> Took:
    """Run one whole `embedkit prepare` on some CPUs."""
    shutil.rmtree(OUT / name, ignore_errors=True)
    return timed(_command(data, name), cpus)


def two_at_once(data: Path, name: str) -> Took:
    """Run two at the same time, each on a core of its own."""
    for number in (1, 2):
        shutil.rmtree(OUT / f"{name}-{number}", ignore_errors=True)
    script = 'taskset -c 0 "$@"-1 & taskset -c 1 "$@"-2 && wait $!'
    return timed(["sh", "-c", script, "sh", *_command(data, name)], TWO)


def _command(data: Path, name: str) -> list[object]:
    return [
        *(PYTHON, "-m", "jobs", "prepare", "--dataset", data, "--model", tokenizer_only(), "--engine", "hash"),
        *("--max-length", 32768, "--full", "--shards", 8, "--output-dir", OUT, "--run-name", name),
    ]


def rival(data: Path, rows: int, *options: str) -> Took:
    """Run the replaced filter on the first rows, on one core."""
    tokenizer = tokenizer_only() / "tokenizer.json"
    command = [PYTHON, "-m", "benchmarks.replaced", "filter", data, tokenizer, "--rows", rows, *options]
    return timed(command, ONE)


def bench() -> Iterator[Figure]:
    """Measure prepare on both corpora, on one core and two."""
    for name, data in (("long", long_rows()), ("demo", demo())):
        one, two, both, alone, bound = in_turns(
            partial(prepare, data, ONE, f"{name}-1"),
            partial(prepare, data, TWO, f"{name}-2"),
            partial(two_at_once, data, f"{name}-both"),
            partial(rival, data, RIVAL_ROWS[name]),
            partial(rival, data, BOUND_ROWS[name], "--bound"),
        )
        is_long = name == "long"
        rows = read(OUT / f"{name}-1" / "plan.json", Plan).rows
        what = f"prepare, {rows:,} {'long rows' if is_long else 'rows of the demo'}"
        megabytes = text_bytes(data) / 1e6
        yield _beside_replaced(
            megabytes,
            *(one, alone),
            work=f"{what}, one core",
            target=25.0 if is_long else None,
            rival=f"the replaced way, each text encoded alone, the first {RIVAL_ROWS[name]:,} rows",
        )
        yield _beside_replaced(
            megabytes,
            *(one, bound),
            work=f"{what}, one core, beside the shortcut",
            target=None if is_long else 1.0,
            note="" if is_long else WHY_NO_SHORTCUT,
            rival=f"the replaced way, only texts over 2 characters per token encoded, the first {BOUND_ROWS[name]:,} "
            "rows; it keeps rows that are too long: digits, Chinese, emoji",
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
        yield of_rounds(
            tuple(ratio / 2 for ratio in quotients(one.walls, two.walls)),
            work=f"{what}, two cores against one, start included",
            target=0.85,
            measured=two.cell,
            rival=f"twice one core, which took {one.cell}",
            note=WHY_NOT_TWICE,
        )
        yield of_rounds(
            quotients(one.walls, both.walls),
            work=f"{what}, two runs at once against one: what the machine allows",
            measured=f"two on a core each: {both.cell}",
            rival=f"one core, which took {one.cell}",
        )
        if is_long:
            yield _as_data_grow(what, one, two)


def _beside_replaced(
    megabytes: float, ours: Side, theirs: Side, work: str, target: float | None, rival: str, note: str = ""
) -> Figure:
    """Megabytes of text per second on one core beside the replaced filter's."""
    their_speed = tuple(took.json["bytes"] / 1e6 / took.json["seconds"] for took in theirs.took)
    our_speed = tuple(megabytes / wall for wall in ours.walls)
    return of_rounds(
        quotients(our_speed, their_speed),
        work=work,
        target=target,
        measured=f"{median(our_speed):.1f} MB/s: {megabytes:,.0f} MB of text in {ours.cell}",
        rival=f"{rival}: {median(their_speed):.2f} MB/s",
        note=note,
    )


def _as_data_grow(what: str, one: Side, two: Side) -> Figure:
    """Two cores beside one without what both take to start: by what more text takes."""
    small = long_rows(SMALL_BYTES)
    less_one, less_two = in_turns(
        partial(prepare, small, ONE, "small-1"), partial(prepare, small, TWO, "small-2"), rounds=len(one.took)
    )
    more_one, more_two = (
        tuple(a - b for a, b in zip(more.walls, less.walls, strict=True))
        for more, less in ((one, less_one), (two, less_two))
    )
    return of_rounds(
        tuple(ratio / 2 for ratio in quotients(more_one, more_two)),
        work=f"{what}, two cores against one, as data grow",
        target=0.93,
        measured=f"{seconds(more_two)} more for 3.3 times the text",
        note=WHY_NOT_TWICE,
        rival=f"twice one core, which took {seconds(more_one)} more",
    )


def _embed(run: RunFolder, shards: range) -> Took:
    """Embed shards as if for the first time."""
    shutil.rmtree(run.embeddings, ignore_errors=True)
    return timed([PYTHON, "-m", "benchmarks.null_embed", run.path, *shards], ONE)


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
        (took,) = in_turns(partial(_embed, RunFolder((OUT / f"embed-{name}").absolute()), shards))
        speeds = quotients(took.of_output("tokens"), took.of_output("seconds"))
        yield of_rounds(
            tuple(speed / H200_TOKENS for speed in speeds),
            work=f"embed without the GPU, {took.json['rows']:,} {name} rows, per core",
            target=20.0 if name == "long" else None,
            measured=f"{median(speeds) / 1e6:.1f} million tokens/s: {took.json['tokens']:,} in "
            f"{seconds(took.of_output('seconds'))}",
            rival=f"one H200 on long rows: {H200_TOKENS:,} tokens/s",
            note="" if name == "long" else "on rows this short an H200 is faster, about 350,000 tokens/s",
        )
