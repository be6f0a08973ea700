"""A whole run through Slurm on this machine's GPUs, undisturbed and disturbed: `python -m benchmarks.gpu cluster`.

Both runs have the same rows and shards. In the second one task is killed, one is frozen for a while and one is
requeued; then `embedkit rerun` submits what is missing. Its vectors are compared with those of the first.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import psutil
from safetensors.numpy import load_file

from benchmarks.gpu.corpus import RUNS, Shape, cut_chats, python_sources
from benchmarks.gpu.model import random_model
from benchmarks.gpu.slurm import gpu_cluster, gpu_devices, provide_slurm
from embedkit.check.status import StatusReader
from embedkit.documents.codec import read
from embedkit.documents.schema import ShardManifest
from embedkit.run import RunFolder
from jobs.records import Submissions
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import signal_all

ROOT = Path(__file__).parents[2]
SHAPES = (Shape(5.0, 0.8, 1_000_000), Shape(7.3, 0.9, 2_000_000), Shape(8.8, 0.85, 5_000_000))
"""Lengths of the rows, short ones first, and tokens per GPU: about half a minute of embedding."""
LEAST_SHARDS = 4
SHARDS_PER_GPU = 2
FREEZE_SECONDS = 20.0
POLL_SECONDS = 0.25
WAIT_SECONDS = 1800.0
SETTLED_SECONDS = 2.0
"""How long a shard has been embedding when its fault comes."""


@dataclass(frozen=True)
class Trial:
    """What both runs share.

    Attributes:
        cluster: the cluster.
        folder: for the profile and the runs.
        request: options of `embedkit submit` that name data, model and shards.
        at_once: shards embedded at once.
        environment: further variables of every command.
    """

    cluster: Cluster
    folder: Path
    request: tuple[object, ...]
    at_once: int
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, name: str) -> RunFolder:
        """The run of a name."""
        return RunFolder(self.folder / name)

    def submit(self, name: str, *more: object) -> RunFolder:
        """Submit a run, with further options of `embedkit submit`."""
        where = ("--profile", self.folder / "site.toml", "--run-name", name, "--output-dir", self.folder)
        self.embedkit("submit", *self.request, "--num-gpus", self.at_once, *where, *more)
        return self.run(name)

    def embedkit(self, *words: object, ok: Sequence[int] = (0,)) -> str:
        """Run an embedkit command and return its output; exit with its errors if it fails."""
        command = [sys.executable, "-m", "jobs", *map(str, words)]
        # Jobs are started in the run's folder, so they need the checkout on their path.
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        more = {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
        environment = os.environ | dict(self.cluster.environment) | more | self.environment
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        if done.returncode not in ok:
            sys.exit(f"embedkit {words[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def is_live(self) -> bool:
        """Whether any task is queued or running."""
        return bool(self.cluster.run("squeue", "-h"))


@dataclass
class Fault:
    """Something that happens to one shard while it is embedded."""

    name: str
    shard: int
    happens: Callable[[Trial, "Fault"], None]
    task: str = ""
    seen: float | None = None
    done: bool = False


def main(packages: Path | None) -> dict[str, Any]:
    """Start Slurm on this machine's GPUs, and try both runs.

    Args:
        packages: a folder of Debian packages of Slurm, for a machine without a network; None: installed ones.
    """
    devices = gpu_devices()
    if not devices:
        sys.exit("there is no GPU here (no /dev/nvidia0)")
    provide_slurm(packages)
    model = random_model()
    data = make_data(model, len(devices))
    shards = max(LEAST_SHARDS, SHARDS_PER_GPU * len(devices))
    with gpu_cluster(devices) as cluster:
        folder = RUNS.absolute() / f"cluster-{len(devices)}"
        write_profile(folder, *share_of_machine(len(devices)))
        request = ("--dataset", data, "--model", model, "--full", "--shards", shards, "--overwrite")
        trial = Trial(cluster, folder, request, len(devices))
        found = {"gpus": len(devices), "slurm": cluster.run("sinfo", "--version"), **try_both(trial)}
        print("  verify --reembed 3", flush=True)
        began = time.monotonic()
        trial.embedkit("verify", trial.run("disturbed").path, "--reembed", 3)
        return {**found, "verify_seconds": time.monotonic() - began}


def make_data(model: Path, gpus: int) -> Path:
    """Chats of three lengths, short ones first, in proportion to the GPUs. Made on first use."""
    data = RUNS.absolute() / f"cluster-{gpus}.parquet"
    if not data.exists():
        RUNS.mkdir(parents=True, exist_ok=True)
        sources = python_sources()
        shapes = [Shape(shape.mean, shape.spread, shape.tokens * gpus) for shape in SHAPES]
        chats = [chat for shape in shapes for chat in cut_chats(sources, model / "tokenizer.json", shape)]
        pl.DataFrame({"messages": chats, "dataset_source": "sources"}).write_parquet(data)
    return data


def share_of_machine(gpus: int) -> tuple[int, int]:
    """CPUs and MB of memory of a task, so that one per GPU and one more fit on this machine."""
    cpus, memory = os.cpu_count() or 1, psutil.virtual_memory().total * 0.8
    return max(cpus // (gpus + 1), 1), int(memory / (gpus + 1)) >> 20


def write_profile(folder: Path, cpus: int, memory: int) -> None:
    """A profile whose embed tasks have one GPU each; memory in MB."""
    folder.mkdir(parents=True, exist_ok=True)
    every = f'partition = "gpu"\ncpus = {cpus}\nmem = {memory}\ntime = 60\n'
    (folder / "site.toml").write_text(f"[all]\n{every}\n[embed]\ngpus = 1\n")


def try_both(trial: Trial) -> dict[str, Any]:
    """Run undisturbed, then with three faults and a rerun, and compare."""
    print("  undisturbed", flush=True)
    plain = trial.submit("plain")
    wait_until(lambda: not trial.is_live(), "the undisturbed run")
    if not plain.success.exists():
        sys.exit(f"the undisturbed run is not merged:\n{trial.embedkit('status', plain.path)}")
    print("  disturbed", flush=True)
    run = trial.submit("disturbed", "--no-preflight")  # the node was checked just now
    faults = [Fault("killed", 1, kill), Fault("frozen", 2, freeze), Fault("requeued", 3, requeue)]
    disturb(trial, run, faults)
    named = [shard for shard in range(plan_shards(run)) if not run.shard_manifest(shard).exists()]
    merge_log = (run.logs / "merge.log").read_text()
    trial.embedkit("rerun", run.path)
    rerun = Submissions(run).last("embed")
    wait_until(lambda: not trial.is_live(), "the rerun")
    if not run.success.exists():
        sys.exit(f"the disturbed run is not merged:\n{trial.embedkit('status', run.path)}")
    return {
        "plain": figures(trial, plain),
        "disturbed": figures(trial, run),
        "faults": [fault.name for fault in faults],
        "unfinished": named,
        "merge_named": all(f"shard {shard}" in merge_log for shard in named) and bool(named),
        "resubmitted": list(rerun.indices) if rerun is not None else [],
        "engine": engine_of(run),
        **compare(plain, run),
    }


def disturb(trial: Trial, run: RunFolder, faults: Sequence[Fault]) -> None:
    """Let each fault happen once its shard is being embedded, and wait until no task is left."""
    reader = StatusReader(run)
    wait_until(run.plan.exists, "the plan")

    def settled() -> bool:
        shards = reader.read().shards
        for fault in faults:
            if fault.done or shards[fault.shard].state != "started":
                continue
            fault.seen = fault.seen or time.monotonic()
            if time.monotonic() - fault.seen >= SETTLED_SECONDS:
                fault.task = f"{last_array(run)}_{fault.shard}"
                fault.happens(trial, fault)
                fault.done = True
                print(f"    {fault.name}: shard {fault.shard}", flush=True)
        return not trial.is_live()

    wait_until(settled, "the disturbed run")
    if missed := [fault.name for fault in faults if not fault.done]:
        sys.exit(f"shards were too quick to be {' or '.join(missed)}")


def kill(trial: Trial, fault: Fault) -> None:
    """End the task's processes as the kernel does when memory runs out."""
    signal_all(processes_of(fault.task), signal.SIGKILL)


def freeze(trial: Trial, fault: Fault) -> None:
    """Stop the task's processes for a while, as on a node that stalls."""
    stopped = processes_of(fault.task)
    signal_all(stopped, signal.SIGSTOP)
    threading.Timer(FREEZE_SECONDS, signal_all, (stopped, signal.SIGCONT)).start()


def requeue(trial: Trial, fault: Fault) -> None:
    """Let Slurm end the task and start it again, as after a preemption."""
    trial.cluster.run("scontrol", "requeue", fault.task)


def processes_of(task: str) -> list[psutil.Process]:
    """The Python processes of an array task, `123_4`."""
    array, _, index = task.partition("_")
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            ours = environment.get("SLURM_ARRAY_JOB_ID") == array and environment.get("SLURM_ARRAY_TASK_ID") == index
            if ours and process.name().startswith("python"):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    if not found:
        sys.exit(f"no process of task {task} is found on this machine")
    return found


def last_array(run: RunFolder) -> str:
    """The job id of the newest embed array."""
    line = Submissions(run).last("embed")
    assert line is not None
    return line.job


def plan_shards(run: RunFolder) -> int:
    """The number of shards."""
    return len(StatusReader(run).read().shards)


def figures(trial: Trial, run: RunFolder) -> dict[str, Any]:
    """Seconds and rates of a merged run, from `embedkit report`."""
    report = json.loads(trial.embedkit("report", run.path, "--json"))
    stages = {stage["stage"]: stage for stage in report["stages"]}
    keys = ("tokens", "embedded_seconds", "predicted_seconds", "attempts", "seconds")
    return {
        "elapsed_seconds": report["elapsed_seconds"],
        "tokens": report["tokens"],
        "device_seconds": report["device_seconds"],
        "spent": report["spent"],
        "stages": {name: stage["elapsed_seconds"] for name, stage in stages.items()},
        "merge_seconds": sum(stages["merge"]["seconds"].values()),
        "shards": [{key: shard[key] for key in keys} for shard in report["shards"]],
    }


def engine_of(run: RunFolder) -> dict[str, Any]:
    """The engine that embedded shard 0."""
    record = read(run.shard_manifest(0), ShardManifest).engine
    return {name: getattr(record, name) for name in record.__struct_fields__}


def compare(plain: RunFolder, run: RunFolder) -> dict[str, Any]:
    """Rows of two merged runs of one request: equal metadata, and the least cosine of a row's two vectors."""
    one, other = (load_file(folder.embeddings / "all.safetensors")["embeddings"] for folder in (plain, run))
    rows, other_rows = (pl.read_parquet(folder.embeddings / "metadata.parquet") for folder in (plain, run))
    cosines = row_cosines(one, other)
    return {
        "rows": len(one),
        "metadata_equal": rows.equals(other_rows),
        "least_cosine": float(cosines.min()),
        "rows_equal_to_the_bit": int((one == other).all(axis=1).sum()),
    }


def row_cosines(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Cosine of each row of two matrices, float32 (n, d), with the same row of the other: float64 (n,)."""
    a, b = (matrix.astype(np.float64) for matrix in (one, other))
    cosines: npt.NDArray[np.float64] = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosines


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; exit after WAIT_SECONDS."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited {WAIT_SECONDS:.0f} s for {what}")
        time.sleep(POLL_SECONDS)
