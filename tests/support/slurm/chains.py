"""Runs on the test cluster, through the real command line."""

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedkit.run import RunFolder
from tests.conftest import embedkit, hash_request
from tests.support.checkout import SUPPORT, python_path
from tests.support.slurm.cluster import Cluster

WAIT_SECONDS = 240


def faults(folder: Path, seconds: float = 0.0, **kinds: dict[str, Any]) -> dict[str, str]:
    """Environment for jobs that fail as tests/support/faulty/ describes."""
    folder.mkdir(exist_ok=True)
    plan = {"folder": str(folder), "seconds": seconds, **kinds}
    return python_path(SUPPORT / "faulty") | {"EMBEDKIT_TEST_FAULTS": json.dumps(plan)}


def submit(
    cluster: Cluster, data: Path, model: Path, output: Path, *more: object, name: str = "run", **environment: str
) -> RunFolder:
    """Submit the request of the hash_run fixture; its merged files must be the same."""
    embedkit(
        *("submit", *hash_request(data, model, output, name), "--profile", "test", "--num-gpus", 4, *more),
        **cluster.environment,
        **environment,
    )
    return RunFolder(output / name)


def rerun(
    cluster: Cluster, run: RunFolder, *more: object, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`embedkit rerun`."""
    return embedkit("rerun", run.path, *more, check=check, **cluster.environment, **environment)


def jobs_of(run: RunFolder, stage: str = "") -> list[str]:
    """Ids of the jobs that were submitted for a run, or for one stage of it, oldest first."""
    lines = [json.loads(line) for line in run.submissions.read_text().splitlines() if line]
    return [line["job"] for line in lines if line["what"] == "submitted" and stage in ("", line["stage"])]


def live(cluster: Cluster, run: RunFolder) -> list[str]:
    """`job index state reason` of the run's tasks that are queued or running."""
    lines = cluster.run("squeue", "-h", "-r", "-o", "%F %K %T %r").splitlines()
    return [line for line in lines if line.split()[0] in jobs_of(run)]


def wait_ended(cluster: Cluster, run: RunFolder, seconds: float = WAIT_SECONDS) -> None:
    """Wait until no job of the run is queued or running."""
    wait_until(lambda: not live(cluster, run), seconds, lambda: f"still there: {live(cluster, run)}\n{logs(run)}")


def wait_until(condition: Any, seconds: float = WAIT_SECONDS, describe: Any = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s: {describe()}"
        time.sleep(0.3)


def logs(run: RunFolder, names: Sequence[str] = ("*.log",)) -> str:
    """The ends of a run's logs, for a failed test."""
    paths = sorted(path for name in names for path in run.logs.glob(name))
    return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in paths)


def file_times(run: RunFolder, shards: Sequence[int]) -> dict[str, int]:
    """The time of the last write of each file of some shards, in ns."""
    paths = [path for shard in shards for path in sorted(run.shard(shard).iterdir())]
    return {str(path): path.stat().st_mtime_ns for path in paths}
