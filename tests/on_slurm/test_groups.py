"""gpus_per_job: one array task has several GPUs and embeds one shard on each, side by side."""

import re
import signal
from pathlib import Path

import psutil
import pytest

from embedkit.embed.journal import durable_chunks
from embedkit.run import RunFolder
from jobs.records.attempts import Attempts
from jobs.records.submissions import Submissions
from tests.conftest import embedkit, snapshot
from tests.support.checkout import python_path
from tests.support.slurm.chains import faults, file_times, live, logs, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

PAIRS = """\
[all]
partition = "cpu"
cpus = 1
mem = 1500
time = 60
[embed]
partition = "gpu"
gpus_per_job = 2
cpus = 2
mem = 3000
"""


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.toml"
    path.write_text(PAIRS)
    return path


def workers(run: RunFolder) -> dict[int, psutil.Process]:
    """The worker process of each shard, found by the log that it writes."""
    found = {}
    for process in psutil.process_iter():
        try:
            if "submitit.core._submit" not in process.cmdline():
                continue
            log = Path(f"/proc/{process.pid}/fd/1").readlink()
        except (psutil.Error, OSError):
            continue
        if log.parent == run.logs and log.stem.startswith("embed-0"):
            found[int(log.stem.partition("-")[2])] = process
    return found


def outcomes(run: RunFolder, shard: int) -> list[str]:
    return [attempt.outcome for attempt in Attempts(run, "embed", shard).attempts()]


def array_of(run: RunFolder) -> str:
    line = Submissions(run).last("embed")
    assert line is not None
    return line.array


def test_pairs_of_shards_give_the_same_files(
    cluster: Cluster, pairs: Path, small_chats: Path, tokenizer_only: Path, five_shards: RunFolder, tmp_path: Path
) -> None:
    environment = faults(tmp_path / "faults", 0.4)
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", pairs, "--shards", 5)
    run = submit(*asked, **environment)
    assert array_of(run) == "0,2,4%2"
    wait_until(lambda: {0, 1} <= set(workers(run)), describe=lambda: logs(run))
    seen = {shard: process.environ().get("SLURM_JOB_ID") for shard, process in workers(run).items()}
    assert seen[0] == seen[1]
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert snapshot(run) == snapshot(five_shards)
    assert [outcomes(run, shard) for shard in range(5)] == [["finished"]] * 5
    names = {path.name for path in run.logs.glob("*.log")}
    assert {"embed-job-00000.log", "embed-job-00002.log", "embed-00000.log", "embed-00003.log"} <= names
    assert not (run.logs / "submitit").exists()
    said = embedkit("status", run.path, **cluster.environment).stdout
    assert "5 done" in said
    assert "GPU hours" in said


def test_each_worker_sees_one_gpu(
    cluster: Cluster, pairs: Path, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    noting = tmp_path / "noting"
    noting.mkdir()
    (noting / "sitecustomize.py").write_text(
        "import os, pathlib\n"
        "from embedkit.engines.hash import HashEngine\n"
        "honest = HashEngine.embed\n"
        "def embed(self, token_ids):\n"
        f"    pathlib.Path({str(noting)!r}, f'{{os.getpid()}}.gpus').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "    return honest(self, token_ids)\n"
        "HashEngine.embed = embed\n"
    )
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", pairs, "--shards", 2)
    run = submit(*asked, **python_path(noting))
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert sorted(path.read_text() for path in noting.glob("*.gpus")) == ["0", "1"]


def test_killed_worker_fails_its_shard_alone(
    cluster: Cluster, pairs: Path, small_chats: Path, tokenizer_only: Path, five_shards: RunFolder, tmp_path: Path
) -> None:
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", pairs, "--shards", 5)
    run = submit(*asked, **faults(tmp_path / "faults", 0.5))
    wait_until(lambda: len(durable_chunks(run.shard(3))) >= 2 and 3 in workers(run), describe=lambda: logs(run))
    workers(run)[3].send_signal(signal.SIGKILL)
    wait_ended(cluster, run)
    finished = [shard for shard in range(5) if run.shard_manifest(shard).exists()]
    assert finished == [0, 1, 2, 4]
    assert outcomes(run, 3) == ["failed"]
    assert (
        "embed-00003 failed: it ended without logging an error (killed?)"
        in (run.logs / "embed-job-00002.log").read_text()
    )
    line = next(line for line in embedkit("status", run.path, code=1, **cluster.environment).stdout.splitlines()
                if line.split()[:1] == ["3"])  # fmt: skip
    assert line.split()[1] == "failed"
    before = file_times(run, finished)
    rerun(cluster, run)
    assert array_of(run) == "3%2"
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(five_shards)
    assert file_times(run, finished) == before


def test_stopped_group_continues_with_all_its_shards(
    cluster: Cluster, pairs: Path, small_chats: Path, tokenizer_only: Path, five_shards: RunFolder, tmp_path: Path
) -> None:
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", pairs, "--shards", 5)
    run = submit(*asked, **faults(tmp_path / "faults", 1.5))
    wait_until(lambda: all(len(durable_chunks(run.shard(shard))) >= 2 for shard in (0, 1)), describe=lambda: logs(run))
    left = list(workers(run).values())
    cluster.run("scancel", "--signal=USR2", "--batch", f"{Submissions(run).jobs('embed')[-1]}_0")
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(five_shards)
    for shard in (0, 1):
        assert outcomes(run, shard) == ["stopped", "finished"]
        assert Attempts(run, "embed", shard).attempts()[1].started.done >= 2
    log = (run.logs / "embed-job-00000.log").read_text()
    assert re.search(r"USR2: \d+ s left, the chunk in hand needs about \d s more: it is finished first", log)
    assert "the work in hand is dropped" not in log
    assert not any(process.is_running() for process in left)


def test_a_group_that_is_cancelled_leaves_no_worker(
    cluster: Cluster, pairs: Path, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", pairs, "--shards", 5)
    run = submit(*asked, **faults(tmp_path / "faults", 1.0))
    wait_until(lambda: len(workers(run)) == 4, describe=lambda: logs(run))
    embedkit("cancel", run.path, **cluster.environment)
    wait_until(lambda: not live(cluster, run) and not workers(run), describe=lambda: logs(run))
    assert [outcomes(run, shard) for shard in range(4)] == [["cancelled"]] * 4
