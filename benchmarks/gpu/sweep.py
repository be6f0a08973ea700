"""What each of the engine's settings does on this GPU: the table of docs/gpu.md.

    python -m benchmarks.gpu.sweep [NAME ...]

Each setting in a process of its own, changed alone against plain kernels with the defaults. Texts are random ids whose
lengths have the distributions of the corpora `tiny`, `short` and `long` (log-normal, means about 200, 2,200 and 7,900).
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.corpus import FOLDER
from benchmarks.gpu.model import SETTINGS, random_model
from embedkit.engines import Engine, start_engine, vllm

CORPORA = {"tiny": (5.0, 0.8, 1_200_000), "short": (7.3, 0.9, 1_500_000), "long": (8.8, 0.85, 2_000_000)}
"""Mean and spread of the logarithm of the length, tokens."""
SHORTEST, LONGEST = 16, 32_700
SECONDS = 150
"""A process that takes longer is ended and has no figures."""
REFERENCE = FOLDER / "sweep"


@dataclass(frozen=True)
class Variant:
    """What is changed: engine settings, arguments of vLLM, constants of the engine's module, environment."""

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    order: Literal["longest", "shortest", "random"] = "longest"
    texts_per_call: int | None = None
    engines: int = 1


QK_FUSION = {"cudagraph_mode": "NONE", "pass_config": {"enable_qk_norm_rope_fusion": True}}
VARIANTS = {
    "defaults": Variant("plain kernels, compiled"),
    "fused": Variant("fused kernels, the default", {"kernels": "fused"}),
    "block16": Variant("keys and values in blocks of 16", {}, {"block_size": 16}),
    "block256": Variant("keys and values in blocks of 256", {}, {"block_size": 256}),
    "budget32k": Variant("32,768 tokens per batch", {"token_budget": 32_768}),
    "budget128k": Variant("131,072 tokens per batch", {"token_budget": 131_072}),
    "seqs256": Variant("256 texts per batch", {"max_sequences": 256}),
    "seqs4096": Variant("4,096 texts per batch", {"max_sequences": 4096}),
    "sync": Variant("no scheduling ahead", {}, {"async_scheduling": False}),
    "all_at_once": Variant("all texts handed over at once", {}, {}, {"BATCHES_AHEAD": 1_000_000}),
    "eager": Variant("eager", {"eager": True}),
    "graphs": Variant("CUDA graphs for small batches", {}, {"compilation_config": {}}),
    "process": Variant("the engine in its own process", {}, {}, {}, {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}),
    "shortest": Variant("shortest first", order="shortest"),
    "random": Variant("random order", order="random"),
    "chunks": Variant("64 texts per call: chunks far too small", texts_per_call=64),
    "two": Variant("two engines on one GPU", engines=2),
    "qknorm": Variant("norms of queries and keys fused with rotary", {}, {"compilation_config": QK_FUSION}),
    "fp8": Variant("FP8 weights and activations", {}, {"quantization": "fp8"}),
}


def main() -> None:
    """Run the named variants, or all, and print a JSON object a line."""
    names = sys.argv[1:] or list(VARIANTS)
    model = random_model()
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name in names:
        found = [json.loads(line) for line in _processes(name, model)]
        if len(found) < VARIANTS[name].engines:
            print(json.dumps({"name": name, "failed": True}), flush=True)
            continue
        rates = {corpus: sum(one["tokens_a_second"][corpus] for one in found) for corpus in CORPORA}
        print(json.dumps({**found[0], "name": name, "tokens_a_second": rates}), flush=True)


def _processes(name: str, model: Path) -> list[str]:
    """The last lines that the variant's processes printed, of those that ended well."""
    variant = VARIANTS[name]
    barrier = REFERENCE / f"{name}-{os.getpid()}"
    command = [sys.executable, "-m", "benchmarks.gpu.sweep", "--one", name, str(model), str(barrier)]
    environment = os.environ | variant.environment
    with (REFERENCE / f"{name}.log").open("w") as log:
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
            for _ in range(variant.engines)
        ]
        ends = []
        for process in processes:
            try:
                printed, _ = process.communicate(timeout=SECONDS)
                ends += printed.strip().splitlines()[-1:] if process.returncode == 0 else []
            except subprocess.TimeoutExpired:
                process.kill()
    return [line for line in ends if line.startswith("{")]


def one(name: str, model: Path, barrier: Path) -> None:
    """One variant in this process; prints its figures. Processes of one variant wait for each other once warm."""
    variant = VARIANTS[name]
    for constant, value in variant.constants.items():
        setattr(vllm, constant, value)
    plain = vllm._arguments
    vllm._arguments = lambda *args: plain(*args) | variant.arguments
    began = time.monotonic()
    settings = {"kernels": "plain"} | variant.settings
    engine = start_engine("vllm", model, msgspec.structs.replace(SETTINGS, **settings))
    start_seconds = time.monotonic() - began
    rng = np.random.default_rng(0)
    corpora = {corpus: texts(rng, *shape) for corpus, shape in CORPORA.items()}
    embed(engine, corpora["tiny"][:3000], variant)
    barrier.with_name(f"{barrier.name}.{os.getpid()}").touch()
    while len(list(barrier.parent.glob(f"{barrier.name}.*"))) < variant.engines:
        time.sleep(0.01)
    rates, cosines = {}, {}
    for corpus, ids in corpora.items():
        began = time.monotonic()
        vectors = embed(engine, ids, variant)
        rates[corpus] = round(sum(map(len, ids)) / (time.monotonic() - began))
        reference = REFERENCE / f"{corpus}.npy"
        if not reference.exists():
            np.save(reference, vectors)
        cosines[corpus] = float((np.load(reference) * vectors).sum(axis=1).min())
    import torch

    free, total = torch.cuda.mem_get_info()
    figures = {
        "label": variant.label,
        "start_seconds": round(start_seconds, 1),
        "tokens_a_second": rates,
        "least_cosine": cosines,
        "gpu_gib": round((total - free) / 2**30, 1),
        "gpu": torch.cuda.get_device_name(),
    }
    print(json.dumps(figures), flush=True)
    engine.close()


def texts(rng: np.random.Generator, mean: float, spread: float, tokens: int) -> list[npt.NDArray[np.uint32]]:
    """Random ids, uint32, whose lengths are log-normal within the limits, so many tokens in all."""
    lengths = rng.lognormal(mean, spread, 100_000).astype(int)
    lengths = lengths[(lengths >= SHORTEST) & (lengths <= LONGEST)]
    lengths = lengths[: int(np.searchsorted(lengths.cumsum(), tokens)) + 1]
    return [rng.integers(0, 50_000, length, dtype=np.uint32) for length in lengths]


def embed(engine: Engine, ids: list[npt.NDArray[np.uint32]], variant: Variant) -> npt.NDArray[np.float32]:
    """Vectors in the order given, fed as the variant says."""
    lengths = np.array([len(each) for each in ids])
    order = np.random.default_rng(1).permutation(len(ids))
    if variant.order != "random":
        order = np.argsort(lengths if variant.order == "shortest" else -lengths, kind="stable")
    vectors = np.empty((len(ids), 1024), np.float32)
    step = variant.texts_per_call or len(ids)
    for start in range(0, len(ids), step):
        at = order[start : start + step]
        vectors[at] = engine.embed([ids[i] for i in at])
    return vectors


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
