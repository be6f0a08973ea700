"""The first user's number of rows through a real cluster on this machine, with kills and a lost node.

    .venv/bin/python -m tests.support.slurm.full_size [--rows 2268178] [--shards 64] [--folder FOLDER]

Uses short made-up chats and the hash engine, so it tests everything except the model. Prints what each stage took, and
fails if the merged run is incomplete. Takes about ten minutes on two cores, and 4 GB in the folder, which is removed.
"""

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from embedkit.data.row_frame import messages_type
from embedkit.run import RunFolder
from jobs.records.attempts import Attempts
from tests.conftest import DEMO, ROOT, embedkit
from tests.support.slurm import cluster as clusters
from tests.support.slurm.chains import jobs_of, live, logs, wait_until
from tests.support.slurm.cluster import Cluster

FILES = 24
SOURCES = 16
PATIENCE = 1800


def write_rows(folder: Path, rows: int) -> None:
    """Write Parquet files of short chats, the same each time."""
    generator = np.random.default_rng(7)
    words = np.array([f"{stem}{end}" for stem in ("re", "un", "lo", "ma", "ti", "so") for end in ("cal", "rin", "de")])
    for number, part in enumerate(np.array_split(np.arange(rows), FILES)):
        picks = words[generator.integers(0, len(words), (len(part), 12))]
        prompts = [f"{row}: {' '.join(some[:6])}?" for row, some in zip(part, picks, strict=True)]
        answers = [" ".join(some[6:]) for some in picks]
        chats = [
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        frame = pl.DataFrame(
            {
                "messages": pl.Series(chats, dtype=messages_type()),
                "dataset_source": [f"source {row % SOURCES}" for row in part],
            }
        )
        frame.write_parquet(folder / f"chats-{number:02}.parquet")


class Trial:
    """A run on a cluster, and ways to disturb it."""

    def __init__(self, cluster: Cluster, run: RunFolder) -> None:
        self._cluster, self._run = cluster, run
        self._began = time.monotonic()
        self._random = random.Random(7)

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.0f} s  {what}", flush=True)

    def wait(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, PATIENCE, lambda: logs(self._run))

    def kill(self, stage: str) -> None:
        """Kill a process of a stage with SIGKILL shortly after it has started."""
        self.wait(lambda: bool(self._tasks(stage)))
        time.sleep(self._random.uniform(0.5, 2.0))
        with suppress(psutil.NoSuchProcess):
            victim = self._random.choice(self._tasks(stage) or [None])
            if victim is None:
                return self.kill(stage)
            shard = victim.environ().get("SLURM_ARRAY_TASK_ID", "")
            victim.send_signal(signal.SIGKILL)
            self.say(f"kill -9: {stage} {shard}")
        return None

    def _tasks(self, stage: str) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                if words[-3:] == ["jobs.node.job", stage, str(self._run.path)] and process.status() != "zombie":
                    found.append(process)
        return found

    def lose_node(self) -> None:
        """Crash a node that runs embed tasks, and restore it later."""

        def nodes() -> list[str]:
            text = self._cluster.run("squeue", "-h", "-r", "-t", "running", "-p", "gpu", "-o", "%N")
            return sorted(set(text.split()))

        self.wait(lambda: bool(nodes()))
        node = nodes()[0]
        self._cluster.lose_node(node)
        self.say(f"node {node} is lost")
        time.sleep(10)
        self._cluster.restore_node(node)
        self.say(f"node {node} is back")

    def wait_ended(self) -> None:
        self.wait(lambda: not live(self._cluster, self._run))
        self.say("all jobs have ended")

    def rerun(self) -> None:
        said = embedkit("rerun", self._run.path, **self._cluster.environment).stdout.splitlines()
        self.say("rerun: " + "; ".join(line for line in said if line.startswith(("job", "merged"))))

    def status(self) -> None:
        text = embedkit("status", self._run.path, check=False, **self._cluster.environment).stdout
        self.say("status\n" + "\n".join(f"          {line[:150]}" for line in text.splitlines()[:14]))


def disturb(trial: Trial) -> None:
    """Kill six processes and lose a node, over all stages; rerun until the run is merged."""
    trial.kill("prepare")
    trial.wait_ended()
    trial.rerun()
    for _ in range(2):
        trial.kill("embed")
    trial.lose_node()
    for _ in range(2):
        trial.kill("embed")
    trial.status()
    trial.wait_ended()
    trial.status()
    trial.rerun()
    trial.kill("merge")
    trial.wait_ended()
    trial.rerun()
    trial.wait_ended()
    trial.status()


def print_usage(run: RunFolder) -> None:
    """Print what each stage used, from the records of its jobs."""
    names = {path.name.partition(".")[0] for path in run.logs.glob("*.attempts.jsonl")}
    for stage in ("prepare", "embed", "merge"):
        mine = [name for name in names if name.partition("-")[0] == stage]
        attempts = [
            attempt
            for name in mine
            for attempt in Attempts(run, stage, int(name.rpartition("-")[2]) if "-" in name else None).attempts()  # type: ignore[arg-type]
        ]
        ended = [attempt.exit_record for attempt in attempts if attempt.exit_record is not None]
        peak = max((last.peak_bytes or 0 for last in ended), default=0)
        cpu = sum(last.cpu_seconds or 0.0 for last in ended)
        print(f"{stage:<8} {len(attempts):>3} attempts, {cpu:,.0f} CPU s, peak {peak / 1e6:,.0f} MB per task")
    files = [path for path in run.path.rglob("*") if path.is_file()]
    sizes: dict[str, list[int]] = {}
    for path in files:
        sizes.setdefault(path.relative_to(run.path).parts[0], []).append(path.stat().st_size)
    for name, found in sorted(sizes.items()):
        print(f"{name:<24} {len(found):>5} files {sum(found) / 1e6:>10,.1f} MB")
    print(f"{'in all':<24} {len(files):>5} files {sum(path.stat().st_size for path in files) / 1e6:>10,.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2_268_178)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="embedkit-full-size-"))
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    write_rows(data, given.rows)
    print(f"{given.rows:,} rows written in {time.monotonic() - began:.0f} s")
    cluster = clusters.start()
    try:
        request = ["--dataset", f"{data}/*.parquet", "--model", DEMO / "model", "--engine", "hash", "--device", "cpu"]
        profile = ROOT / "slurm_templates" / "test.toml"
        began = time.monotonic()
        embedkit(
            *("submit", *request, "--full", "--texts", "all", "--output-dir", folder, "--run-name", "full"),
            *("--shards", given.shards, "--num-gpus", 8, "--profile", profile),
            **cluster.environment,
        )
        print(f"submitted in {time.monotonic() - began:.1f} s")
        run = RunFolder(folder / "full")
        trial = Trial(cluster, run)
        disturb(trial)
        trial.say(f"merged after {len(jobs_of(run))} jobs")
        began = time.monotonic()
        print(embedkit("verify", run.path).stdout.strip())
        print(f"verified in {time.monotonic() - began:.0f} s")
        print_usage(run)
        kept = pl.scan_parquet(run.metadata).select(pl.len(), pl.col("row").n_unique().alias("rows")).collect()
        assert kept.row(0) == (given.rows, given.rows), kept
        print(f"load average {os.getloadavg()}")
    finally:
        cluster.stop()
        if given.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
