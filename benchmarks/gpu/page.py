"""Write docs/gpu.md from the last measurements on GPUs."""

import json
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path("docs/gpu.md")
TARGETS = {
    "long": {"plain": 1.06, "replaced": 1.75, "packed": 0.97},
    "short": {"plain": 1.19, "replaced": 2.0, "packed": 0.96},
    "tiny": {"plain": 1.22, "replaced": 2.5, "packed": 0.93},
}
"""Targets per corpus: at least this many times the speed of each rival."""
RIVALS = {
    "plain": ("plain kernels", "itself with `--kernels plain`"),
    "replaced": (
        "the replaced way",
        "the replaced way: `LLM.embed` of texts with vLLM's defaults, floats through lists",
    ),
    "packed": (
        "plain torch",
        "the same network in plain torch: compiled, packed without padding, FlashAttention 3; nothing read, checked or "
        "written",
    ),
}
"""By part of the rounds: the rival's name in the table, and what it is."""
CHUNK_TOKENS = 8_000_000

HEAD = """# What the GPU does

`python -m benchmarks.gpu` measures all of this again on a machine with a GPU and writes this page, in less than an hour on
an H200, except what was tried and not kept. `python -m benchmarks.gpu checks` and the like do one part. It needs the GPU build
([the environment](operating.md#the-environment)) and no network. The model has the shapes and the dtype of
Qwen3-Embedding-0.6B and its genuine tokenizer. Its weights are random; speed does not depend on them. The texts are cut
from the Python sources of the machine's own packages.
"""

TAIL = """## What follows from it

- **Batches of 65,536 tokens** take 28 GiB of an H200's memory with plain kernels, batches of 32,768 tokens 17 GiB. An
  engine falls back to the smaller ones by itself where the GPU's own memory is short. Batches of 131,072 tokens take twice
  the memory for one per cent at most. Only packed batches, which take less, have them.
- **Fused kernels** are used for models of the Qwen3 family on Hopper GPUs (`--kernels`). Nothing is compiled by torch then.
  With the pooling of the last token they take 16 GiB, since vLLM reserves pages for one text only.
- **Compiled** kernels are used elsewhere, where shards last a minute or more: within that time they earn back what
  compiling adds to a start. Shorter shards run eager. The plan decides for the whole run.
- **Scheduling ahead** keeps the GPU busy. Without it the GPU waits a sixth of the time on texts of 200 tokens. It needs no
  more than three batches in vLLM's hands. If all texts are there at once, short ones are slower.
- **Blocks of 128 tokens** for keys and values give 4 % on long texts, on Hopper.
- **Longest first** is as fast as a random order, since the budget is in tokens, and it frees the memory of the longest
  texts at once. Shortest first is slower where texts are short.
- **Loading the tokenizer in a thread** while the engine starts saves the second at the end, but the engine's own start took
  1.5 to 3.5 s longer (on a different machine). So the tokenizer is loaded after the engine.
- **CUDA graphs** double the start and are never used: batches have more tokens than any graph.
- **FP8** is faster, most on short texts. Its vectors are off by a cosine of 0.02, two hundred times as much as bfloat16. It
  is not offered.
- **Two engines on one GPU** are slower than one. An engine in its own process is up to 7 % slower on the shortest texts,
  and can outlive its task.
- **1,024 texts per batch** fill the budget of tokens. With 256, texts of 200 tokens do not fill it, which costs 5 %.
- **A preflight pays for itself.** Without the kernels that it packs, the first start on a node took 49 s instead of 31.
- **Chunks of millions of tokens** keep the engine full. With 64 texts per call it drains at every border, which costs a
  third on texts of 200 tokens.
- **The ceiling** of plain kernels is matrix products and attention alone. Fused kernels pass it on `short` and `long`
  texts, since they leave out most of the last layer. vLLM's own pass that fuses the
  norms of queries and keys with rotary changed nothing beyond noise.
"""


FUSED_WITH = {
    "qkv": "RMS norm, norms of query and key heads, rotary",
    "gate and up": "RMS norm, SwiGLU",
    "out": "residual, sums of squares",
    "down": "residual, sums of squares",
}
"""By product, what its fused kernel does beside it."""

TRIED = """### Batches without vLLM's scheduler

vLLM's scheduler takes 0.2 ms of one CPU per text, so it was the limit on texts of 1 to 100 tokens: the GPU was busy for
35 % of the time. Where the last token is pooled, embedkit packs texts into batches itself. One engine, random ids, tokens
per second, three rounds on one H200 (2026-11-30):

| texts | 65,536 tokens per batch | 131,072 |
| --- | ---: | ---: |
| `tiny` | 604,803, 615,483, 583,992 | 618,925, 615,783, 603,441 |
| `short` | 405,278, 404,875, 391,453 | 409,200, 401,217, 402,996 |
| `long` | 252,333, 251,253, 244,726 | 254,934, 251,470 |
| `1 to 100` | 598,832, 626,179, 600,212 | 626,413, 602,361 |

Before, 8,000 texts of 1 to 100 tokens ran at 243,000 tokens per second. In these batches the numbers of a text do not
depend on the other texts: 1,674 texts had the same vectors to the bit in three orders, alone, in calls of 7 and of 97, and
in batches of 32,768, 65,536, 100,001 and 131,072 tokens. So the size of a batch changes no number. Packed batches have
twice the token budget, 131,072 tokens: that is less of a difference than between these rounds, but 0.6 % in the layers
below, and takes 16 GiB of the GPU where vLLM's batches of that size would take 54.

### Whole layers, with one thing changed

Eight layers over texts of about 2,052 tokens (`short`), four turns on one hot H200 (1,480 MHz at its limit of 700 W). The
speed is relative to the unchanged layers, which were timed before and after each:

| changed | speed | kept |
| --- | ---: | --- |
| heads: cosines and norms' weights in the order in which a thread reads them | 1.017 (1.016 to 1.019) | yes |
| gate and up: clusters of 1 x 2 blocks instead of 2 x 1 | 1.003 (1.001 to 1.004) | yes |
| heads: clusters of 1 x 2 blocks instead of 2 x 1 | 1.005 (1.001 to 1.006) | yes |
| batches of 131,072 tokens | 1.006 (1.005 to 1.008) | yes |
| all of these | **1.027** (1.026 to 1.029) | |
| nothing | 1.000 (0.998 to 1.001) | |
| batches in turns on two CUDA streams | 1.004 (1.002 to 1.006) | no: two batches would be in memory at once |

### vLLM 0.25.1

It runs on the same torch 2.11.0 and with the same kernels. Seconds of the rounds' corpora on the same card, 0.24.0 as the
median of three processes, 0.25.1 in one:

| corpus | 0.24.0, fused | 0.25.1, fused | 0.24.0, plain | 0.25.1, plain |
| --- | ---: | ---: | ---: | ---: |
| `long` | 8.33 | 8.36 | 9.68 | 9.71 |
| `short` | 3.71 | 3.72 | 4.54 | 4.54 |
| `tiny` | 2.08 | 2.11 | 2.76 | 2.75 |

It gains nothing, so the pin stays at 0.24.0. vLLM 0.26 and later need another version of CUTLASS than quack-kernels 0.5.0
and were not measured.

### Fused kernels: tried and not kept

- **Rotary and the norms of heads in a Triton kernel of their own** took 211 us a layer, at 3.8 TB per second. In the
  product's epilogue they take about 40 (80 before its loads were wide).
- **When that epilogue asks** for weights, positions and cosines, early or late, changed nothing: 962 and 963 us, before its
  loads were wide.
- **FlashAttention 4** (the CuTe kernels in vLLM, which run on Hopper, too): of nine batches two were 5 and 6 % faster (texts
  of 4,400 and 13,000 tokens), the others up to 5 % slower, and with texts of 100 to 770 tokens 15 to 190 %. **Packing the
  heads of a group** in FlashAttention 3: 3 % faster to 12 % slower.
- **A Triton kernel for attention** in texts of 770 and 1,050 tokens: 31 to 34 % slower than FlashAttention 3. At 280 tokens
  it is 2 % faster, at 100 tokens 23 %, so it is kept for packed texts of at most 384.
- **24 tiles and clusters** for each product, timed alone and in turns. The fastest alone (256 x 128 for qkv) was not the
  fastest on a hot GPU. Nor is it with the heads in the epilogue: 975 to 1,020 us, and 912 for 128 x 128 in turns of two
  tiles (1,019 without turns; 64 x 128: 1,325; cuBLAS' product alone: 829).
"""

EAGER_SHARDS = """Costs were predicted for a compiled engine in this run. Shards of seconds get an eager engine. It loses twice as much on
short rows (16 %) as on long ones (8 %), so the shard with the short rows took longer than predicted. Since then, costs of
an eager engine are predicted by these shares; this was not measured again."""


def read_results() -> dict[str, Any]:
    """Read the measurements, by part."""
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {}


def write_results(results: dict[str, Any]) -> None:
    """Keep the measurements."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def write_page() -> None:
    """Write the page from all kept results."""
    results = read_results()
    sections = [HEAD]
    for part, section in (
        ("rounds", _rounds),
        ("rounds-earlier", _rounds),
        ("kernels", lambda found: _kernels(found, results.get("rounds", {}).get("product", []))),
        ("start", _start),
        ("start-thread", _start),
        ("checks", _checks),
        ("exact", _exact),
        ("curve", _curve),
        ("curve-fused", _fused_curve),
    ):
        if part in results:
            sections.append(section(results[part]))
    sections += [_sweep(results[key]) for key in sorted(results) if key.startswith("sweep")]
    sections += [_queue(results[key]) for key in sorted(results) if key.startswith("queue-")]
    sections += [_cluster(results[key]) for key in sorted(results) if key.startswith("cluster-")]
    if "sweep" in results:
        sections.append(TAIL)
    PAGE.write_text("\n".join(sections), encoding="utf-8")


def _rounds(found: dict[str, Any]) -> str:
    product = found["product"]
    first = product[0]
    rivals = [name for name in RIVALS if name in found]
    lines = [
        f"## One GPU, end to end{found.get('title', '')}",
        "",
        f"{first['gpu']}, vLLM {first['vllm']}, torch {first['torch']}, {found['day']}.",
        "",
        "This is the product's own path: Parquet in, safetensors and manifest out. The clock runs from the first chunk given",
        f"to a warm engine to the manifest's fsync. Figures are medians of {len(product)} interleaved rounds, each in its own",
        "process. The product is compared with:",
        "",
        *(f"- {RIVALS[name][1]}" for name in rivals),
        "",
        f"| corpus | tokens per row | tokens/s |{''.join(f' of {RIVALS[name][0]} | target |' for name in rivals)}",
        f"| --- | ---: | ---: |{' ---: | ---: |' * len(rivals)}",
    ]
    for corpus, targets in TARGETS.items():
        size = first["corpora"][corpus]
        ours = _median_seconds(product, corpus)
        cells = [f"{size['tokens'] / size['rows']:,.0f}", f"{size['tokens'] / ours:,.0f}"]
        for name in rivals:
            theirs = _median_seconds(found[name], corpus)
            cells += [f"{_against_target(theirs / ours, targets[name])}x", f"{targets[name]:g}x"]
        lines.append(f"| `{corpus}` | {' | '.join(cells)} |")
    if "borders" in found:
        lines += _of_host(found)
    return "\n".join([*lines, ""])


def _median_seconds(runs: list[dict[str, Any]], corpus: str) -> float:
    """Of the product, of the product with plain kernels, or of a rival."""
    seconds = [one["seconds"] if "seconds" in one else _seconds_by_corpus(one["corpora"]) for one in runs]
    return median(one[corpus] for one in seconds)


def _seconds_by_corpus(corpora: dict[str, Any]) -> dict[str, float]:
    return {name.removesuffix("-plain"): corpus["seconds"] for name, corpus in corpora.items()}


def _of_host(found: dict[str, Any]) -> list[str]:
    """CPU, memory, idle times and starts."""
    product = found["product"]
    cpu = ", ".join(
        f"{median(one['corpora'][name]['cpu_seconds_a_million_tokens'] for one in product):.2f} on `{name}`"
        for name in TARGETS
    )
    starts = ["", *_start_table("### Start with plain kernels", found["plain"])] if "plain" in found else []
    return [
        "",
        f"CPU seconds per million tokens: {cpu}. Peak memory: {max(one['host_gib'] for one in product):.1f} GiB of the host,",
        f"{max(one['gpu_gib'] for one in product):.1f} GiB of the GPU.",
        "",
        "Between two chunks the GPU is idle for",
        *(f"{_idle(name, corpus)}," for name, corpus in found["borders"]["corpora"].items()),
        "from the end of a chunk's last step until the next chunk's first batch is launched.",
        "",
        *_start_table("### Start", product),
        *starts,
    ]


def _kernels(found: dict[str, Any], product: list[dict[str, Any]]) -> str:
    """The product beside what its products and attention alone would allow, the kernels alone, where the time goes."""
    lines = [
        "## Fused kernels",
        "",
        f"{found['alone']['gpu']}, {found['day']}. The last column is what the matrix products of cuBLAS and FlashAttention 3",
        "alone would allow, timed on the card in one go with the above, for random ids of about the same lengths. Fused",
        "kernels can be faster, since they compute the last layer for the last token of each text only.",
        "",
        "| corpus | the product, tokens/s | products and attention alone |",
        "| --- | ---: | ---: |",
    ]
    for name in TARGETS:
        rate = median(one["corpora"][name]["tokens"] / one["corpora"][name]["seconds"] for one in product)
        lines.append(f"| `{name}` | {rate:,.0f} | {found['alone']['ceilings'][name]['tokens_a_second']:,} |")
    return "\n".join([*lines, "", *_products(found["alone"]), *_profile(found["profile"]["corpora"]), TRIED])


def _products(found: dict[str, Any]) -> list[str]:
    """The products of a layer, fused and alone."""
    lines = [
        "### A layer's products",
        "",
        "Microseconds for 65,536 tokens, and Tflops per second. The fused ones also do what the last column says. All are timed",
        "in turns, so that each finds the GPU equally hot: on a cool one cuBLAS' qkv took 728 us.",
        "",
        "| product | cuBLAS | | fused | | with |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, extra in FUSED_WITH.items():
        cells = [
            cell
            for key in (f"cublas {name}", name)
            for cell in (f"{found['microseconds'][key]:,.0f}", f"{found['tflops'][key]}")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {extra} |")
    worst = max(found["errors"].values())
    lines += [
        "",
        f"Against the same in plain torch, in float32, the largest error of a number is {worst:.4f} of the largest number. Two",
        "results that are each rounded to bfloat16 differ by up to 0.0078 (2^-7). The engine makes this comparison at each",
        "start.",
        "",
    ]
    return lines


def _profile(corpora: dict[str, Any]) -> list[str]:
    """Shares of the time by kind of kernel."""
    kinds = list(next(iter(corpora.values()))["milliseconds"])
    lines = [
        "### Where the time goes",
        "",
        "Shares of the GPU's busy time by kind of kernel, and how much of the whole time it is busy. `1 to 100` are 8,000 texts of",
        "1 to 100 tokens.",
        "",
        f"| texts | {' | '.join(kinds)} | GPU busy |",
        f"| --- |{' ---: |' * (len(kinds) + 1)}",
    ]
    for name, one in corpora.items():
        busy = sum(one["milliseconds"].values())
        shares = " | ".join(f"{one['milliseconds'][kind] / busy:.1%}" for kind in kinds)
        lines.append(f"| `{name}` | {shares} | {min(busy / one['seconds'] / 1000, 1):.0%} |")
    return [*lines, ""]


def _start(found: dict[str, Any]) -> str:
    title = f"### Start{found.get('title', ' alone')}\n\n{found['runs'][0]['gpu']}, {found['day']}."
    return "\n".join([*_start_table(title, found["runs"]), ""])


def _start_table(title: str, runs: list[dict[str, Any]]) -> list[str]:
    names = list(runs[0]["start"])
    lines = [
        title,
        "",
        "Seconds from the start of the process to the first vectors of the canary.",
        "",
        "| | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(names),
    ]
    for one in runs:
        seconds = " | ".join(f"{one['start'][name]:.1f}" for name in names)
        lines.append(f"| {'kernels cached' if one['has_kernels'] else 'kernels compiled'} | {seconds} |")
    return lines


def _idle(name: str, corpus: dict[str, Any]) -> str:
    idle = median(corpus["between_chunks"])
    chunk = CHUNK_TOKENS * corpus["seconds"] / corpus["tokens"]
    return f"{1000 * idle:.0f} ms on `{name.removesuffix('-chunks')}` ({100 * idle / chunk:.2f} % of a chunk of {CHUNK_TOKENS / 1e6:.0f} M tokens)"


def _against_target(ratio: float, target: float) -> str:
    return f"{ratio:.3g}" if ratio >= target else f"**{ratio:.3g}, missed** "


def _checks(found: dict[str, Any]) -> str:
    truth = found["truth"]
    lines = [
        "## Edges and truth",
        "",
        f"{found['gpu']}, {found['day']}, {found.get('kernels', 'plain')} kernels. "
        f"Problems: {', '.join(found['problems']) or 'none'}.",
        "",
        "| texts in one call | |",
        "| --- | --- |",
    ]
    for label, edge in found["edges"].items():
        if not isinstance(edge, str):
            edge = f"{edge['seconds']} s, cosine to the same text alone {edge['least_cosine_to_alone']:.5f}"
        lines.append(f"| {label} | {edge} |")
    lines += [
        "",
        f"Least cosine to a float32 forward of the same weights, {len(truth['lengths'])} texts of 1 to 32,768 tokens:",
        f"{truth['least']['vllm_bfloat16']:.6f}; of a plain bfloat16 forward by transformers:",
        f"{truth['least']['transformers_bfloat16']:.6f}. The canary's vectors moved by {found['canary_moved']:.2g} during this.",
        "",
        *_batches(found.get("other_batches")),
        "A start while another process holds nearly all of the GPU's memory is refused:",
        f"> {found['held_gpu']}",
        "",
    ]
    return "\n".join(lines)


def _batches(found: dict[str, Any] | None) -> list[str]:
    """How many vectors change with the batch."""
    if found is None:
        return []
    ways = ", ".join(f"{way}: {changed:,}" for way, changed in found["changed"].items())
    return [
        f"How many of {found['texts']:,} texts of 1 to 32,768 tokens have a vector that differs in any bit from the one in a",
        f"single call: {ways}.",
        "",
    ]


def _exact(found: dict[str, Any]) -> str:
    """Rows of runs with --exact that are equal to the bit."""
    lines = ["## The same bytes with --exact", ""]
    if "misfit" in found:
        return "\n".join([*lines, f"Not measured: {found['misfit']}.", ""])
    lines += [
        f"{found['gpu']}, {found['day']}. Runs by `embedkit run`, each compared with that of one shard:",
        "",
        "| run | rows | equal to the bit |",
        "| --- | ---: | ---: |",
    ]
    for name, one in found["runs"].items():
        is_equal = one["metadata_equal"] and one["rows_equal_to_the_bit"] == one["rows"]
        lines.append(
            f"| {name} | {one['rows']:,} | {one['rows_equal_to_the_bit']:,}{'' if is_equal else ' **missed**'} |"
        )
    return "\n".join([*lines, ""])


def _curve(found: dict[str, Any]) -> str:
    matrix = found["matrix_flops_a_second"]
    lines = [
        "## By length",
        "",
        f"{found['engine']['gpu']}, {found['day']}, plain kernels. Texts of one length at a time. The last column is flops per second as a share of what a",
        f"product of two matrices of 8,192 x 8,192 reached in the same process ({matrix / 1e12:.0f} Tflops per second).",
        "",
        "| tokens per text | tokens/s | of the matrix rate |",
        "| ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one['length']:,} | {one['tokens_a_second']:,.0f} | {one['share_of_matrix_rate']:.2f} |"
        for one in found["lengths"]
    ]
    return "\n".join([*lines, ""])


def _fused_curve(found: dict[str, Any]) -> str:
    """What `embedkit curve` found of fused and of plain kernels on one card."""
    lines = [
        "### By length, fused kernels beside plain ones",
        "",
        f"{found['gpu']}, {found['day']}: `embedkit curve`, both on one card, with batches of 65,536",
        "tokens and before the heads' wide loads. The cost model has the fused rates.",
        "",
        "| tokens per text | fused, tokens/s | plain, tokens/s | |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for length, fused, plain in zip(found["lengths"], found["fused"], found["plain"], strict=True):
        lines.append(f"| {length:,} | {fused:,.0f} | {plain:,.0f} | {fused / plain:.2f}x |")
    return "\n".join([*lines, ""])


def _sweep(found: dict[str, Any]) -> str:
    variants = found["variants"]
    base = variants[0]
    lines = [
        f"## What each setting does{found.get('title', '')}",
        "",
        f"{base['gpu']}, {found['day']}. Each setting is changed alone against the defaults (first line), in its own",
        "process. Columns: tokens per second of random ids with the corpora's lengths, the least cosine to the defaults'",
        "vectors, memory of the GPU, and seconds of the engine's start, which may include compiling.",
        "",
        "| | tiny | short | long | least cosine | GiB | start |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in variants:
        if one.get("failed"):
            lines.append(f"| {one['name']} | failed | | | | | |")
            continue
        rates = " | ".join(_rate(one, base, corpus) for corpus in ("tiny", "short", "long"))
        cosine = min(one["least_cosine"].values())
        lines.append(f"| {one['label']} | {rates} | {cosine:.5f} | {one['gpu_gib']:.0f} | {one['start_seconds']:.0f} |")
    return "\n".join([*lines, ""])


def _rate(one: dict[str, Any], base: dict[str, Any], corpus: str) -> str:
    rate = one["tokens_a_second"][corpus]
    return f"{rate:,} ({rate / base['tokens_a_second'][corpus]:.3f})"


def _queue(found: dict[str, Any]) -> str:
    gpus = found["gpus"]
    alone = _speed(found["one"]["shards"])
    lines = [
        f"## {gpus} GPUs of one machine",
        "",
        f"{gpus} x {found['one']['shards'][0]['gpu']}, {found['day']}. `embedkit run` by the local queue on a corpus",
        "whose first half is `tiny` rows and whose second half `long` ones, in that order; one shard per GPU. One GPU with",
        f"all of it, {found['one']['shards'][0]['tokens'] / 1e6:.1f} M tokens: {alone:,.0f} tokens per second; its engine is"
        f" {found['one']['shards'][0]['compile']}, as the plan says.",
        "",
        "| shards of equal | slowest shard | fastest | apart | speed per GPU, of one alone |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, label in (("cost", "predicted cost"), ("rows", "row counts")):
        shards = found[name]["shards"]
        seconds = [shard["embed_seconds"] for shard in shards]
        tokens = sum(shard["tokens"] for shard in shards)
        speed = tokens / max(seconds) / gpus
        lines.append(
            f"| {label} | {max(seconds):.1f} s | {min(seconds):.1f} s | {100 * (max(seconds) / min(seconds) - 1):.1f} % "
            f"| {speed / alone:.3f} |"
        )
    if found["cost"]["shards"][0]["compile"] == "eager":
        lines += ["", EAGER_SHARDS]
    return "\n".join([*lines, ""])


def _cluster(found: dict[str, Any]) -> str:
    plain, disturbed, engine = found["plain"], found["disturbed"], found["engine"]
    gpus, rows = found["gpus"], found["rows"]
    lines = [
        f"## A whole run through Slurm on {gpus} GPUs",
        "",
        f"{gpus} x {engine['gpu']} of one machine, Slurm {found['slurm'].split()[-1]}, vLLM {engine['engine_version']}, torch {engine['torch']}, {engine['compile']} engine, {found['day']}.",
        "`python -m benchmarks.gpu cluster` measures this again.",
        "",
        f"`embedkit submit` to the merged run: {rows:,} rows, {plain['tokens'] / 1e6:.1f} M tokens, {len(plain['shards'])} shards, short rows first.",
        "In the second run, without a preflight, one task was killed with `kill -9`, one was frozen for 20 s, and one was",
        "requeued by Slurm. Merge named what was missing, and `embedkit rerun` submitted that and nothing else.",
        "",
        "| | undisturbed | disturbed and rerun |",
        "| --- | ---: | ---: |",
    ]
    seconds = [
        ("submit to merged", lambda one: one["elapsed_seconds"]),
        ("prepare", lambda one: one["stages"]["prepare"]),
        ("preflight, the first start of the engine", lambda one: one["stages"].get("preflight")),
        ("embed, first start to last end", lambda one: one["stages"]["embed"]),
        ("engine start, median shard", lambda one: median(shard["seconds"]["start"] for shard in one["shards"])),
        ("embedding, fastest shard", lambda one: min(shard["embedded_seconds"] for shard in one["shards"])),
        ("embedding, slowest shard", lambda one: max(shard["embedded_seconds"] for shard in one["shards"])),
        ("predicted for a shard", lambda one: one["shards"][0]["predicted_seconds"]),
        ("merge", lambda one: one["merge_seconds"]),
    ]
    lines += [f"| {name} | {_seconds(value(plain))} | {_seconds(value(disturbed))} |" for name, value in seconds]
    rates = [_slurm_rate(one) for one in (plain, disturbed)]
    lost = [one["spent"]["lost"] for one in (plain, disturbed)]
    lines += [
        f"| tokens per second per GPU while embedding | {rates[0]:,.0f} | {rates[1]:,.0f} |",
        f"| GPU time lost in attempts that ended early | {lost[0]:,.1f} s | {lost[1]:,.1f} s |",
        f"| attempts at shards | {_attempts(plain)} | {_attempts(disturbed)} |",
        "",
        f"Unfinished before the rerun: shard {_listed(found['unfinished'])}"
        f"{', named by merge' if found['merge_named'] else ', not named by merge'}. Submitted by it: shard {_listed(found['resubmitted'])}.",
        f"Metadata of both runs: {'equal' if found['metadata_equal'] else '**different**'}. Least cosine of a row's two vectors:"
        f" {found['least_cosine']:.5f}; equal to the bit: {found['rows_equal_to_the_bit']:,} of {rows:,} rows.",
        _verified(found["verify_seconds"]),
    ]
    return "\n".join([*lines, ""])


def _verified(seconds: float | None) -> str:
    if seconds is None:
        return "`embedkit verify --reembed 3` was not run here: the machine had to be given back."
    return f"`embedkit verify --reembed 3` of the second run found nothing wrong, in {seconds:.0f} s."


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} s"


def _slurm_rate(run: dict[str, Any]) -> float:
    return float(run["tokens"] / sum(shard["embedded_seconds"] for shard in run["shards"]))


def _attempts(run: dict[str, Any]) -> int:
    return sum(shard["attempts"] for shard in run["shards"])


def _listed(shards: list[int]) -> str:
    return ", ".join(map(str, shards)) or "none"


def _speed(shards: list[dict[str, Any]]) -> float:
    return float(sum(shard["tokens"] for shard in shards) / sum(shard["embed_seconds"] for shard in shards))
