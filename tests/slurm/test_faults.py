"""Faults on a real cluster: whatever ends a task, the merged run is the one that nothing disturbed."""

import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedkit.runfolder import RunFolder
from embedkit.shardfile import durable_chunks
from jobs.attempts import Attempts
from tests.conftest import snapshot
from tests.slurm.chains import faults, file_times, jobs_of, live, logs, rerun, submit, wait_ended, wait_until
from tests.slurm.cluster import Cluster

SLOW = 0.7
"""Seconds a chunk; a shard has 13."""


@dataclass(frozen=True)
class Trial:
    """A run to be disturbed, and the one that it must equal in the end."""

    cluster: Cluster
    data: Path
    model: Path
    folder: Path
    undisturbed: RunFolder

    def submit(self, *more: object, seconds: float = SLOW, **kinds: dict[str, list[object]]) -> RunFolder:
        """Submit the run; `seconds` and `kinds` as in tests/faulty/."""
        environment = faults(self.folder / "faults", seconds, **kinds)
        return submit(self.cluster, self.data, self.model, self.folder, *more, **environment)

    def profile(self, **embed: str | int) -> tuple[object, ...]:
        """Options for a site profile like `test`, with other settings for embed."""
        settings = {"partition": "gpu", "gpus": 1, **embed}
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
        site = self.folder / "site.toml"
        site.write_text('[all]\npartition = "cpu"\ncpus = 1\nmem = 1500\ntime = 60\n[embed]\n' + "".join(lines))
        return "--profile", site

    def wait_whole(self, run: RunFolder) -> None:
        """Wait until the run is merged, and compare it."""
        wait_ended(self.cluster, run)
        assert run.success.exists(), logs(run)
        assert snapshot(run) == snapshot(self.undisturbed)

    def mend(self, run: RunFolder, *more: object) -> str:
        """Once all has ended: rerun, which makes the run whole and touches no finished shard; returns what it said."""
        wait_ended(self.cluster, run)
        assert not run.success.exists()
        finished = [shard for shard in range(3) if run.shard_manifest(shard).exists()]
        before = file_times(run, finished)
        said = rerun(self.cluster, run, *more).stdout
        assert f"{len(finished)} of 3 shards are finished" in said
        self.wait_whole(run)
        assert file_times(run, finished) == before
        return said


@pytest.fixture
def trial(cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path) -> Trial:
    return Trial(cluster, small_chats, tokenizer_only, tmp_path, hash_run)


@pytest.fixture
def fragile_node(cluster: Cluster) -> Iterator[str]:
    """A node to lose, this test's alone; given back whole."""
    with (cluster.folder / "n5.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield "n5"
        if "down" in cluster.run("sinfo", "-h", "-n", "n5", "-p", "fragile", "-o", "%t"):
            cluster.restore_node("n5")


def wait_chunks(run: RunFolder, shard: int, chunks: int) -> None:
    """Wait until so many chunks of a shard are durable."""
    wait_until(lambda: durable_chunks(run.shard(shard)) >= chunks, 60, lambda: logs(run))


def outcomes(run: RunFolder, shard: int) -> list[str]:
    """How each start of a shard ended, oldest first."""
    return [start.outcome for start in Attempts(run, "embed", shard).starts()]


def log_of(run: RunFolder, shard: int) -> str:
    return (run.logs / f"embed-{shard:05d}.log").read_text()


def running(cluster: Cluster, run: RunFolder) -> dict[str, str]:
    """The node of each running task of embed, by index."""
    lines = cluster.run("squeue", "-h", "-r", "-t", "running", "-j", embed_job(run), "-o", "%K %N").splitlines()
    return dict(map(str.split, lines))


def embed_job(run: RunFolder) -> str:
    return jobs_of(run, "embed")[-1] if jobs_of(run, "embed") else ""


def shard_on(cluster: Cluster, run: RunFolder, node: str) -> int:
    """A shard that is embedded on a node, with two chunks done."""
    wait_until(lambda: node in running(cluster, run).values(), 60, lambda: f"{live(cluster, run)}\n{logs(run)}")
    shard = next(int(index) for index, where in running(cluster, run).items() if where == node)
    wait_chunks(run, shard, 2)
    return shard


def test_a_task_that_somebody_cancels_stays_ended_until_it_is_run_again(trial: Trial) -> None:
    run = trial.submit(seconds=0.4)
    wait_chunks(run, 1, 2)
    trial.cluster.run("scancel", f"{embed_job(run)}_1")
    wait_ended(trial.cluster, run)
    assert outcomes(run, 1) == ["cancelled"]
    assert f"cancelled; to run it again: embedkit rerun {run.path}" in log_of(run, 1)
    assert "embed shards 1" in trial.mend(run)
    assert "chunks are durable already" in log_of(run, 1)


@pytest.mark.slow
def test_preempted_tasks_are_requeued_and_go_on_where_they_were(trial: Trial) -> None:
    run = trial.submit(*trial.profile(partition="scavenge", nodelist="n8"))
    wait_chunks(run, 0, 2)
    wait_chunks(run, 1, 2)
    urgent = ("--partition=urgent", "--nodelist=n8", "--gres=gpu:2", "--output=/dev/null", "--wrap", "sleep 1")
    trial.cluster.run("sbatch", *urgent)
    trial.wait_whole(run)
    for shard in (0, 1):
        assert outcomes(run, shard) == ["stopped", "finished"]
        assert "start 0" in log_of(run, shard)
        assert "start 1" in log_of(run, shard)
        assert "chunks are durable already" in log_of(run, shard)
    assert len(jobs_of(run)) == 3


@pytest.mark.slow
def test_tasks_of_a_lost_node_go_on_elsewhere_and_rerun_leaves_that_to_slurm(trial: Trial, fragile_node: str) -> None:
    run = trial.submit(*trial.profile(partition="fragile"))
    shard = shard_on(trial.cluster, run, fragile_node)
    trial.cluster.lose_node(fragile_node)
    assert "nothing to submit" in rerun(trial.cluster, run).stdout
    trial.wait_whole(run)
    assert outcomes(run, shard) == ["failed", "finished"]
    assert "chunks are durable already" in log_of(run, shard)
    assert len(jobs_of(run)) == 3


@pytest.mark.slow
def test_a_task_that_ended_with_its_node_is_run_again_without_that_node(trial: Trial, fragile_node: str) -> None:
    """Slurm requeues by itself; where a site or a person forbids that, the task is NODE_FAIL for good."""
    run = trial.submit(*trial.profile(partition="fragile"))
    shard = shard_on(trial.cluster, run, fragile_node)
    for index in running(trial.cluster, run):
        trial.cluster.run("scontrol", "update", f"JobId={embed_job(run)}_{index}", "Requeue=0")
    trial.cluster.lose_node(fragile_node)
    wait_ended(trial.cluster, run)
    trial.cluster.restore_node(fragile_node)
    assert f"without nodes {fragile_node}, which failed" in trial.mend(run)
    assert [start.first.node for start in Attempts(run, "embed", shard).starts()] == [fragile_node, "n6"]
