"""Three corpora of chats for a GPU machine without a network, and runs of them ready for embed.

Texts are cut from the machine's own Python sources, with log-normal token lengths: `long` (mean about 7,900), `short`
(about 2,200) and `tiny` (about 200). A run has one shard; the rivals get the same texts and the same token ids.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.corpus import FOLDER
from benchmarks.gpu.model import random_model
from embedkit.documents.codec import read, write
from embedkit.documents.schema import Plan, PlanShard, RunConfig
from embedkit.embed.inputs import InputReader
from embedkit.prepare.extract import TEXT_COLUMNS, view_text
from embedkit.prepare.kept_rows import KeptRows
from embedkit.prepare.plan import chunk_borders, read_plan
from embedkit.run import RunFolder

RUNS = FOLDER / "gpu"


@dataclass(frozen=True)
class Shape:
    """Lengths of a corpus: mean and spread of their logarithm, and total tokens."""

    mean: float
    spread: float
    tokens: int


SHAPES = {"long": Shape(8.8, 0.85, 2_400_000), "short": Shape(7.3, 0.9, 1_600_000), "tiny": Shape(5.0, 0.8, 1_200_000)}
SHORTEST, LONGEST = 16, 32_700
CHARACTERS = 5
"""Characters of text per token, more than Python sources need."""
CUT_AT_ONCE = 512


def make_corpora(names: tuple[str, ...] = tuple(SHAPES)) -> dict[str, RunFolder]:
    """Prepared runs, by corpus. Made on first use, with `rival.npz` and `rival.json` beside each."""
    model = random_model()
    sources = python_sources()
    runs = {}
    for name in names:
        run = RunFolder((RUNS / name).absolute())
        data = RUNS / f"{name}.parquet"
        if not data.exists():
            RUNS.mkdir(parents=True, exist_ok=True)
            chats = cut_chats(sources, model / "tokenizer.json", SHAPES[name])
            pl.DataFrame({"messages": chats, "dataset_source": name}).write_parquet(data)
        if not run.plan.exists():
            prepare(data, model, f"{name}-asked", shards=1)
            with_plan(RunFolder(run.path.with_name(f"{name}-asked")), name, compiled)
        if not (run.path / "rival.npz").exists():
            write_rivals(run)
        runs[name] = run
    return runs


def prepare(data: Path, model: Path, name: str, shards: int, num_gpus: int = 1, *more: str) -> None:
    """Run `embedkit prepare` as a person would type it, with more options."""
    command = [
        *(sys.executable, "-m", "jobs", "prepare", "--dataset", data, "--model", model, "--engine", "vllm"),
        *("--device", "cuda", "--full", "--shards", shards, "--num-gpus", num_gpus),
        *("--output-dir", RUNS.absolute(), "--run-name", name, *more),
    ]
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)


def python_sources() -> str:
    """Python sources of this machine's packages, joined in random order."""
    files = sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py"))
    files = [files[i] for i in np.random.default_rng(1).permutation(len(files))]
    wanted = CHARACTERS * max(shape.tokens for shape in SHAPES.values())
    texts: list[str] = []
    size = 0
    for file in files:
        text = file.read_text(encoding="utf-8", errors="ignore")
        texts.append(text)
        size += len(text)
        if size > wanted:
            break
    return "\n".join(texts)


def cut_chats(sources: str, tokenizer_file: Path, shape: Shape) -> list[list[dict[str, str]]]:
    """Cut chats of about the given tokens: a twentieth of the text is the prompt, the rest the answer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    rng = np.random.default_rng(1)
    chats: list[list[dict[str, str]]] = []
    at = tokens = 0
    while tokens < shape.tokens:
        drawn = rng.lognormal(shape.mean, shape.spread, CUT_AT_ONCE).astype(int)
        wanted = drawn[(drawn >= SHORTEST) & (drawn <= LONGEST)].tolist()
        pieces = []
        for count in wanted:
            if at + CHARACTERS * count > len(sources):
                at = 0
            pieces.append(sources[at : at + CHARACTERS * count])
            at += len(pieces[-1])
        for piece, count, encoded in zip(
            pieces, wanted, tokenizer.encode_batch(pieces, add_special_tokens=False), strict=True
        ):
            if tokens >= shape.tokens:
                break
            kept = min(count, len(encoded.ids))
            text = piece[: encoded.offsets[kept - 1][1]]
            tokens += kept
            asks = max(len(text) // 20, 1)
            chats.append([{"role": "user", "content": text[:asks]}, {"role": "assistant", "content": text[asks:]}])
    return chats


def write_rivals(run: RunFolder) -> None:
    """The run's texts and token ids in row order, as rivals take them."""
    config = read(run.config, RunConfig)
    plan = read_plan(run, config)
    chunk = InputReader(run, config, plan).read(0, plan.rows_kept)
    texts = KeptRows(run, plan.parts).read(0, plan.rows_kept, list(TEXT_COLUMNS)).select(view_text("combined"))
    (run.path / "rival.json").write_text(json.dumps(texts["combined"].to_list()))
    token_ids = chunk.token_ids["combined"]
    np.savez(run.path / "rival.npz", ids=token_ids.ids, offsets=token_ids.offsets)


def with_plan(run: RunFolder, name: str, change: Callable[[Plan, npt.NDArray[np.int64]], Plan]) -> RunFolder:
    """Copy a prepared run with a different plan. `change` gets the plan and the rows' tokens, int64 (n,)."""
    copy = RunFolder(run.path.with_name(name))
    shutil.rmtree(copy.path, ignore_errors=True)
    shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns("embeddings", "logs"))
    plan = read_plan(run, read(run.config, RunConfig))
    tokens = pl.concat(
        [pl.read_parquet(path, columns=["num_tokens"], glob=False) for path in sorted(copy.extracted.iterdir())]
    )["num_tokens"].cast(pl.Int64)
    write(copy.plan, change(plan, tokens.to_numpy()))
    return copy


def small_chunks(chunk_tokens: int) -> Callable[[Plan, npt.NDArray[np.int64]], Plan]:
    """Change a plan to chunks of at most this many tokens."""

    def change(plan: Plan, tokens: npt.NDArray[np.int64]) -> Plan:
        sums = np.concatenate([np.zeros(1, np.int64), tokens.cumsum()])
        shards = [
            msgspec.structs.replace(shard, chunks=chunk_borders(sums, shard.start, shard.stop, chunk_tokens))
            for shard in plan.shards
        ]
        settings = msgspec.structs.replace(plan.settings, chunk_tokens=chunk_tokens)
        return msgspec.structs.replace(plan, shards=tuple(shards), settings=settings)

    return change


def plain_kernels(plan: Plan, tokens: npt.NDArray[np.int64]) -> Plan:
    """Change a plan to the kernels of vLLM."""
    return msgspec.structs.replace(plan, settings=msgspec.structs.replace(plan.settings, kernels="plain"))


def compiled(plan: Plan, tokens: npt.NDArray[np.int64]) -> Plan:
    """Change a plan to a compiled engine, which shards as short as these would not have."""
    settings = msgspec.structs.replace(plan.settings, eager=False)
    return msgspec.structs.replace(plan, settings=settings)


def equal_rows(plan: Plan, tokens: npt.NDArray[np.int64]) -> Plan:
    """Change a plan to shards of equal row counts."""
    sums = np.concatenate([np.zeros(1, np.int64), tokens.cumsum()])
    borders = np.linspace(0, len(tokens), len(plan.shards) + 1).astype(int).tolist()
    shards = [
        PlanShard(
            start=start,
            stop=stop,
            tokens=int(sums[stop] - sums[start]),
            cost_seconds=1.0,
            chunks=chunk_borders(sums, start, stop, plan.settings.chunk_tokens),
        )
        for start, stop in pairwise(borders)
    ]
    return msgspec.structs.replace(plan, shards=tuple(shards))
