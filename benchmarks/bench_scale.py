"""One run from 0.1 to 100 million rows: what plan, submit, status, merge and verify take, and what merge writes.

    python -m benchmarks scale                        all sizes, in more than half an hour
    python -m benchmarks.bench_scale 100e6            one size, kept beside the others
    python -m benchmarks.bench_scale 1e6 --layout merged --store bfloat16

Each step is a process of its own. The shards' files are hard links to one file (benchmarks/fabricate.py), so the disk
has them once, and they are read from the page cache. Slurm's commands are stand-ins that answer at once.
"""

import argparse
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import get_args

import tokenizers
from msgspec.structs import replace

from benchmarks.bench_merge import sha256
from benchmarks.bench_plan import read_parts
from benchmarks.corpus import FOLDER
from benchmarks.fabricate import COST, Shape, fabricate_at_scale
from benchmarks.measure import GIB, PYTHON, Figure, Took, keep, read_results, timed
from benchmarks.rounds import Side, in_turns, of_rounds, quotients, seconds
from embedkit.data import identify
from embedkit.documents import Dtype, Layout, Locations, PartManifest, Plan, RunConfig, digest, read, write
from embedkit.model import model_files
from embedkit.prepare.stage import make_plan
from embedkit.run import RunFolder
from embedkit.storage import available_cpus

SIZES: tuple[tuple[int, Layout, Dtype], ...] = (
    (97_657, "sharded", "float32"),
    (1_000_000, "merged", "float32"),
    (1_000_000, "sharded", "float32"),
    (10_000_000, "sharded", "float32"),
    (100_000_000, "sharded", "bfloat16"),
)
"""About how many rows, and where and how their vectors are stored. The merged layout needs the disk for all vectors
twice, whole and by source. bfloat16 halves the bytes that the largest run hashes."""
SHARD_ROWS = 97_657
"""Rows of a shard: 1,024 shards have 100,000,768 rows."""
TOKENS = 500.0
MOST_GIB = 2.0
RIVAL_BYTES = 16 << 30
"""The rival hashes no more bytes than these, and its time is scaled."""
SLURM = {
    "sbatch": "cat > /dev/null; echo $$",
    "scontrol": 'case "$2" in config) echo "ClusterName = here"; echo "MaxArraySize = 100001" ;; esac',
    "squeue": "",
    "sinfo": "",
    "sacct": "",
    "sacctmgr": "",
    "scancel": "",
}
"""Scripts in place of Slurm's commands, on a cluster where nothing runs."""


def bench() -> Iterator[Figure]:
    """Measure all sizes."""
    for rows, layout, store in SIZES:
        yield from bench_size(rows, layout, store)


def bench_size(rows: int, layout: Layout, store: Dtype, path: Path | None = None) -> Iterator[Figure]:
    """Measure every step of a run of about so many rows. path: of a run that was fabricated before; it is kept."""
    shards = -(-rows // SHARD_ROWS)
    shape = Shape(
        rows=shards * SHARD_ROWS,
        sources=16,
        text_bytes=0,
        shards=shards,
        layout=layout,
        store=store,
        texts="none",
        tokens=TOKENS,
    )
    run = fabricate_at_scale(FOLDER.resolve() / "scale", shape) if path is None else RunFolder(path.resolve())
    try:
        for figure in _steps(run, f"{shape.rows:,} rows, {layout}, {store}"):
            yield replace(figure, rows=shape.rows) if figure.cpu and layout == "sharded" else figure
    finally:
        for folder in (_beside(run, "plan"), _beside(run, "submit"), *([run] if path is None else [])):
            shutil.rmtree(folder.path, ignore_errors=True)


def _steps(run: RunFolder, what: str) -> Iterator[Figure]:
    took: dict[str, Took] = {}
    for step, command in {
        "plan": [PYTHON, "-m", "benchmarks.bench_scale", "--plan", run.path],
        "submit": _submit(run),
        "status": [PYTHON, "-m", "jobs", "status", run.path],
    }.items():
        took[step] = timed(command, ok=(0, 1) if step == "status" else (0,))
        yield _step(what, step, took[step])
    verify = partial(timed, [PYTHON, "-m", "jobs", "verify", run.path])
    merged, verified, hashed = in_turns(partial(_merge, run), verify, partial(_hash_some, run))
    for step, side in {"merge": merged, "verify": verified}.items():
        took[step] = sorted(side.took, key=lambda one: one.cpu)[len(side.took) // 2]
        yield _step(what, step, took[step])
        yield _beside_sha256(run, f"{step}, {what}", side, hashed)
    yield _written(run, what)
    largest = max(took, key=lambda step: took[step].peak_bytes)
    yield Figure(
        work=f"memory, {what}",
        value=took[largest].peak_bytes / GIB,
        unit="GiB",
        target=MOST_GIB,
        at_most=True,
        measured=f"the largest process of all steps, in {largest}",
        rival="none",
    )


def _step(what: str, step: str, took: Took) -> Figure:
    """A cell of the table of all sizes."""
    return Figure(
        work=f"{what}: {step}",
        value=took.wall,
        unit="s",
        measured=f"{took.wall:,.1f} s ({took.cpu:,.1f} s of CPU), {took.peak_bytes / GIB:.2f} GiB",
        rival="",
        cpu=took.cpu,
    )


def _written(run: RunFolder, what: str) -> Figure:
    """The files of the merged run that are not the shards', and their bytes."""
    found = [*run.embeddings.glob("*"), *run.tables.glob("*"), *run.by_source.rglob("*")]
    files = [path for path in found if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return Figure(
        work=f"{what}: written",
        value=size / 1e9,
        unit="GB",
        measured=f"{size / 1e6:,.0f} MB in {len(files):,} files",
        rival="",
    )


def _merge(run: RunFolder) -> Took:
    """Merge, also if the run is merged."""
    run.success.unlink(missing_ok=True)
    return timed([PYTHON, "-m", "jobs", "merge", run.path])


def _shard_files(run: RunFolder) -> list[Path]:
    return sorted(run.embeddings.glob("shards/*/*.safetensors"))


def _hashed_share(files: list[Path]) -> tuple[int, int]:
    """How many of these files the rival hashes, and the bytes of all."""
    whole = sum(path.stat().st_size for path in files)
    return max(min(len(files), RIVAL_BYTES * len(files) // whole), 1), whole


def _hash_some(run: RunFolder) -> Took:
    """Hash the shards' files, or as many as the rival may, on all cores."""
    count, _ = _hashed_share(_shard_files(run))
    return timed([PYTHON, "-m", "benchmarks.bench_scale", "--hash", count, run.path])


def _beside_sha256(run: RunFolder, what: str, ours: Side, theirs: Side) -> Figure:
    """A step beside sha256 of the shards' files, by CPU seconds: other work on the machine slows clocks."""
    files = _shard_files(run)
    count, whole = _hashed_share(files)
    cpu, wall = ([getattr(one, name) * len(files) / count for one in theirs.took] for name in ("cpu", "wall"))
    scaled = "" if count == len(files) else f", scaled from {count} of {len(files)} files"
    our_cpu = [one.cpu for one in ours.took]
    return of_rounds(
        quotients(cpu, our_cpu),
        work=f"{what}, by CPU seconds",
        measured=f"{seconds(our_cpu)} of CPU, {seconds(ours.walls)} of time for {whole / 1e9:,.1f} GB of vectors",
        rival=f"sha256 of the same vectors on all cores: {seconds(cpu)} of CPU, {seconds(wall)} of time{scaled}",
    )


def _beside(run: RunFolder, step: str) -> RunFolder:
    """The folder of the same run before a step."""
    return RunFolder(run.path.with_name(f"{run.path.name}-{step}"))


def _submit(run: RunFolder) -> list[object]:
    """The command that submits all shards of a run. Its data and model are those of a run with one row."""
    new = _beside(run, "submit")
    _link_parts(run, new)
    data, model = new.path / "chats.jsonl", new.path / "model"
    data.write_text('{"messages": [{"role": "assistant", "content": "a"}], "dataset_source": "a"}\n')
    model.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_text("{}\n")
    config, plan = read(run.config, RunConfig), read(run.plan, Plan)
    request = replace(
        config.request,
        data=(identify(data),),
        model_files=model_files(model),
        device="cpu",
        store="float32",  # the hash engine has no other
        tokenizers_version=tokenizers.__version__,
    )
    write(new.config, replace(config, request=request, locations=Locations(data=(str(data),), model=str(model))))
    write(new.plan, replace(plan, request_sha256=digest(request)))
    slurm = new.path / "slurm"
    slurm.mkdir(exist_ok=True)
    for name, script in SLURM.items():
        (slurm / name).write_text(f"#!/bin/sh\n{script}\n")
        (slurm / name).chmod(0o755)
    where = ["--run-name", new.path.name, "--output-dir", new.path.parent]
    command = [PYTHON, "-m", "jobs", "submit", "--resume", *where, "--profile", "cpu", "--no-profile-check"]
    return ["env", f"PATH={slurm}:{os.environ['PATH']}", *command]


def _link_parts(run: RunFolder, new: RunFolder) -> None:
    """A folder with the parts of a run and nothing else."""
    shutil.rmtree(new.path, ignore_errors=True)
    new.path.mkdir()
    new.parts.symlink_to(run.parts)
    new.extracted.symlink_to(run.extracted)


def _plan(run: RunFolder) -> None:
    """Make the plan of a run's parts as a resumed prepare does, with as many shards, and write it elsewhere."""
    config = read(run.config, RunConfig)
    new = _beside(run, "plan")
    _link_parts(run, new)
    manifests = [read(path, PartManifest) for path in sorted(run.parts.glob("part-*.json"))]
    write(new.plan, make_plan(new, config, manifests[-1].stop, read_parts(new, manifests), COST))


def _hash(run: RunFolder, count: int) -> None:
    """Hash the files of the first shards."""
    files = _shard_files(run)[:count]
    with ThreadPoolExecutor(available_cpus()) as pool:
        for _ in pool.map(sha256, files):
            pass


def main() -> None:
    """Measure one size and keep its figures beside those of other sizes, or do the work of one process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", help="about how many rows; or the run, with --plan or --hash")
    parser.add_argument("--layout", choices=get_args(Layout), default="sharded")
    parser.add_argument("--store", choices=get_args(Dtype), default="float32")
    parser.add_argument("--run", type=Path, help="A run of this size that was fabricated before; it is not removed.")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--hash", type=int)
    asked = parser.parse_args()
    if asked.plan:
        _plan(RunFolder(Path(asked.what)))
        return
    if asked.hash:
        _hash(RunFolder(Path(asked.what)), asked.hash)
        return
    for figure in bench_size(int(float(asked.what)), asked.layout, asked.store, asked.run):
        print(f"  {figure.work}: {figure.measured}; {figure.rival}", flush=True)
        kept = read_results().get("scale", [])
        figures = [figure if old.work == figure.work else old for old in kept]
        keep("scale", figures if figure in figures else [*kept, figure], "python -m benchmarks scale")


if __name__ == "__main__":
    main()
