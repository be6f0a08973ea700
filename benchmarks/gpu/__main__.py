"""Measure everything on a GPU and write the page, with one command on a GPU machine.

    python -m benchmarks.gpu [rounds] [kernels] [start] [checks] [exact] [curve] [sweep] [queue] [page]
    python -m benchmarks.gpu cluster [--slurm-packages FOLDER]

Without names: all of the first line (queue where there is more than one GPU). Less than an hour on an H200. What a
part found is kept in `results.json` beside this file as soon as it is done; `page` alone writes docs/gpu.md from it.
`cluster` takes about ten minutes. It needs root, since it installs Slurm where it is missing: from a folder of Debian
packages (benchmarks/gpu/slurm.py lists them) where there is no network.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.gpu import cluster
from benchmarks.gpu.corpus import make_corpora, plain_kernels, small_chunks, with_plan
from benchmarks.gpu.model import random_model
from benchmarks.gpu.page import PAGE, read_results, write_page, write_results
from jobs.local.queue import visible_gpus

ROUNDS = 3
SMALL_CHUNK_TOKENS = 300_000
"""Small enough for a few borders between chunks, to measure the GPU's idle time there."""


def main() -> None:
    """Measure the named parts, or all, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part")
    parser.add_argument("--slurm-packages", type=Path, metavar="FOLDER", help="Debian packages of Slurm, for cluster")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "rounds": rounds,
        "kernels": kernels,
        "start": start,
        "checks": checks,
        "exact": exact,
        "curve": curve,
        "sweep": sweep,
        "queue": queue,
        "cluster": lambda: cluster.main(arguments.slurm_packages),
    }
    by_default = [name for name in parts if name != "cluster" and (name != "queue" or len(visible_gpus()) > 1)]
    names = arguments.parts or by_default
    unknown = sorted(set(names) - set(parts) - {"page"})
    if unknown:
        sys.exit(f"no part named {', '.join(unknown)}; there are: {', '.join(parts)}, page")
    for name in [name for name in names if name != "page"]:
        print(f"{name} ...", flush=True)
        found = {"day": date.today().isoformat(), **parts[name]()}
        key = f"{name}-{found['gpus']}" if name in ("queue", "cluster") else name
        write_results(read_results() | {key: found})
    write_page()
    print(f"{PAGE} is written")


def rounds() -> dict[str, Any]:
    """Measure the product and its rivals in turn, each in its own process, three times in changing order."""
    runs = make_corpora()
    model = random_model()
    of_all = [str(run.path) for run in runs.values()]
    plain = [with_plan(run, f"{name}-plain", plain_kernels) for name, run in runs.items()]
    commands = {
        "product": ["benchmarks.gpu.product", *of_all],
        "plain": ["benchmarks.gpu.product", *(str(run.path) for run in plain)],
        "replaced": ["benchmarks.gpu.rivals", "replaced", str(model), *of_all],
        "packed": ["benchmarks.gpu.rivals", "packed", str(model), *of_all],
    }
    names = list(commands)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for i in range(ROUNDS):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            found[name].append(json_of(commands[name]))
            if name == "plain" and found[name][-1]["engine"]["compile"] == "fused":
                sys.exit("the engine of the round with plain kernels had fused ones")
            print(f"  round {i + 1}: {name}: {seconds_of(found[name][-1])}", flush=True)
    borders = [
        str(with_plan(runs[name], f"{name}-chunks", small_chunks(SMALL_CHUNK_TOKENS)).path) for name in ("tiny", "long")
    ]
    return {**found, "borders": json_of(["benchmarks.gpu.product", *borders])}


def kernels() -> dict[str, Any]:
    """Measure the fused kernels alone, and where the time goes."""
    alone = json_of(["benchmarks.gpu.kernels"])
    return {"alone": alone, "profile": json_of(["benchmarks.gpu.profile", str(random_model())])}


def seconds_of(found: dict[str, Any]) -> dict[str, float]:
    """Seconds of one process, by corpus."""
    if "corpora" in found:
        return {name: corpus["seconds"] for name, corpus in found["corpora"].items()}
    return dict(found["seconds"])


def start() -> dict[str, Any]:
    """Measure the start alone, three times; the first one with whatever is compiled already."""
    tiny = make_corpora(("tiny",))["tiny"]
    return {"runs": [json_of(["benchmarks.gpu.product", str(tiny.path)]) for _ in range(3)]}


def checks() -> dict[str, Any]:
    """Check edges, truth and little memory."""
    return json_of(["benchmarks.gpu.checks"], ok=(0, 1))


def exact() -> dict[str, Any]:
    """Compare runs with --exact."""
    return json_of(["benchmarks.gpu.exact"], ok=(0, 1))


def curve() -> dict[str, Any]:
    """Measure speed by length."""
    return json_of(["benchmarks.gpu.curve", str(random_model())])


def sweep() -> dict[str, Any]:
    """Measure every variant of the engine's settings."""
    lines = output_of(["benchmarks.gpu.sweep"], (0,)).strip().splitlines()
    return {"variants": [json.loads(line) for line in lines]}


def queue() -> dict[str, Any]:
    """Measure the local queue on all GPUs of this machine."""
    return json_of(["benchmarks.gpu.queue", str(len(visible_gpus()))])


def json_of(module: Sequence[str], ok: Sequence[int] = (0,)) -> dict[str, Any]:
    """Read the last JSON object that a module prints on a line. vLLM's own processes print lines, too."""
    lines = [line for line in output_of(module, ok).splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1]))


def output_of(module: Sequence[str], ok: Sequence[int]) -> str:
    """Run a module and return its output. Exits with the end of its errors if it fails."""
    done = subprocess.run([sys.executable, "-m", *module], capture_output=True, text=True)
    if done.returncode not in ok:
        sys.exit(f"{' '.join(module)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
