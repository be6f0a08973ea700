"""Write docs/gpu.md from the last measurements on GPUs."""

import json
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path("docs/gpu.md")
TARGETS = {"long": (1.75, 0.97), "short": (2.0, 0.96), "tiny": (2.5, 0.93)}
"""Targets per corpus: at least this many times the replaced way, and at least this share of the packed ceiling."""
CHUNK_TOKENS = 8_000_000

HEAD = """# What the GPU does

`python -m benchmarks.gpu` measures all of this again on a machine with a GPU and writes this page, in about half an hour on
an H200, except what was tried and not kept. `python -m benchmarks.gpu checks` and the like do one part. It needs the GPU build
([the environment](operating.md#the-environment)) and no network. The model has the shapes and the dtype of
Qwen3-Embedding-0.6B and its genuine tokenizer. Its weights are random; speed does not depend on them. The texts are cut
from the Python sources of the machine's own packages.
"""

TAIL = """## What follows from it

- **Batches of 65,536 tokens** take 28 GiB of an H200's memory, batches of 32,768 tokens 17 GiB. An engine falls back to
  the smaller ones by itself where memory is short. Batches of 131,072 tokens take twice the memory for one per cent at
  most.
- **Fused kernels** are used for models of the Qwen3 family on Hopper GPUs (`--kernels`). Nothing is compiled by torch then.
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
  texts, since they leave out most of the last layer, and reach 0.89 of it on `tiny` ones. vLLM's own pass that fuses the
  norms of queries and keys with rotary changed nothing beyond noise.
"""


FUSED_WITH = {
    "qkv": "RMS norm, norms of query and key heads, rotary",
    "gate and up": "RMS norm, SwiGLU",
    "out": "residual, sums of squares",
    "down": "residual, sums of squares",
}
"""By product, what its fused kernel does beside it."""

TRIED = """On texts of 1 to 100 tokens vLLM's scheduling is the limit, not the GPU: a text takes 0.2 ms of one CPU.

### Fused kernels: tried and not kept

- **Rotary and the norms of heads in a Triton kernel of their own** took 211 us a layer, at 3.8 TB per second. In the
  product's epilogue they take about 80.
- **The order of loads in that epilogue** (weights, positions and cosines early or late) changes nothing: 962 and 963 us.
- **FlashAttention 4** (the CuTe kernels in vLLM, which run on Hopper, too): of nine batches two were 5 and 6 % faster (texts
  of 4,400 and 13,000 tokens), the others up to 5 % slower, and with texts of 100 to 770 tokens 15 to 190 %. **Packing the
  heads of a group** in FlashAttention 3: 3 % faster to 12 % slower.
- **A Triton kernel for attention** in texts of 770 and 1,050 tokens: 31 to 34 % slower than FlashAttention 3. At 280 tokens
  it is 2 % faster, at 100 tokens 23 %, so it is kept for batches whose longest text has at most 384.
- **24 tiles and clusters** for each product, timed alone and in turns. The fastest alone (256 x 128 for qkv) was not the
  fastest on a hot GPU.
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
        ("kernels", _kernels),
        ("start", _start),
        ("start-thread", _start),
        ("checks", _checks),
        ("curve", _curve),
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
    product, replaced, packed = (found[name] for name in ("product", "replaced", "packed"))
    first = product[0]
    lines = [
        "## One GPU, end to end",
        "",
        f"{first['gpu']}, vLLM {first['vllm']}, torch {first['torch']}, {found['day']}.",
        "",
        "This is the product's own path: Parquet in, safetensors and manifest out. The clock runs from the first chunk given",
        "to a warm engine to the manifest's fsync. The rivals are the replaced way (`LLM.embed` of texts with vLLM's",
        "defaults, floats through lists) and a ceiling (the same network in plain torch, compiled, packed without padding,",
        f"FlashAttention 3; nothing read, checked or written). Figures are medians of {len(product)} interleaved rounds, each",
        "in its own process.",
        "",
        "| corpus | tokens per row | tokens/s | of the replaced way | target | of the ceiling | target |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, (times, share) in TARGETS.items():
        corpus = first["corpora"][name]
        ours = median(one["corpora"][name]["seconds"] for one in product)
        theirs, ceiling = (median(one["seconds"][name] for one in rival) for rival in (replaced, packed))
        lines.append(
            f"| `{name}` | {corpus['tokens'] / corpus['rows']:,.0f} | {corpus['tokens'] / ours:,.0f} "
            f"| {_against_target(theirs / ours, times)}x | {times:g}x | {_against_target(ceiling / ours, share)} | {share:g} |"
        )
    cpu = ", ".join(
        f"{median(one['corpora'][name]['cpu_seconds_a_million_tokens'] for one in product):.2f} on `{name}`"
        for name in TARGETS
    )
    lines += [
        "",
        f"CPU seconds per million tokens: {cpu}. Peak memory: {max(one['host_gib'] for one in product):.1f} GiB of the host,",
        f"{max(one['gpu_gib'] for one in product):.1f} GiB of the GPU.",
        "",
        "Between two chunks the GPU is idle for",
        *(f"{_idle(name, corpus)}," for name, corpus in found["borders"]["corpora"].items()),
        "from the end of a chunk's last step until the next chunk's first batch is launched.",
        "",
        *_start_table("### Start", product),
    ]
    return "\n".join([*lines, ""])


def _kernels(found: dict[str, Any]) -> str:
    """Fused kernels beside plain ones, the kernels alone, and where the time goes."""
    first = found["fused"][0]
    lines = [
        "## Fused kernels",
        "",
        f"{first['gpu']}, vLLM {first['vllm']}, torch {first['torch']}, {found['day']}. As above, with `--kernels fused` and "
        "`--kernels plain`,",
        f"medians of {len(found['fused'])} interleaved rounds, each in its own process. The last column is what the matrix products "
        "of cuBLAS and",
        "FlashAttention 3 alone would allow, timed on the same card for random ids of about the same lengths. Fused kernels can",
        "be faster, since they compute the last layer for the last token of each text only.",
        "",
        "| corpus | tokens per row | plain, tokens/s | fused, tokens/s | | products and attention alone |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in TARGETS:
        corpus = first["corpora"][name]
        fused = median(one["corpora"][name]["seconds"] for one in found["fused"])
        plain = median(one["corpora"][f"{name}-plain"]["seconds"] for one in found["plain"])
        ceiling = found["alone"]["ceilings"][name]["tokens_a_second"]
        lines.append(
            f"| `{name}` | {corpus['tokens'] / corpus['rows']:,.0f} | {corpus['tokens'] / plain:,.0f} "
            f"| {corpus['tokens'] / fused:,.0f} | {plain / fused:.3f}x | {ceiling:,} |"
        )
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
        f"Against the same in plain torch, in float32, the largest error of a number is {worst:.4f} of the largest number, which is",
        "bfloat16's rounding (2^-8 = 0.0039). The engine makes this comparison at each start.",
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
    truth, little = found["truth"], found["little_memory"]
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
        "A start while another process holds nearly all of the GPU's memory: "
        + (little if isinstance(little, str) else f"batches of {little['token_budget']:,} tokens, recorded."),
        "",
    ]
    return "\n".join(lines)


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
