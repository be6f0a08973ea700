"""Faults on a real cluster: whatever ends a task, the merged run equals an undisturbed one."""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from embedkit.embed.journal import durable_chunks
from embedkit.job import JobContext, current_job, enter_job
from embedkit.run import RunFolder
from jobs.records.attempts import Attempts
from tests.conftest import snapshot
from tests.support.checkout import SUPPORT, python_path
from tests.support.slurm import cluster as clusters
from tests.support.slurm.chains import faults, file_times, jobs_of, live, logs, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import Cluster
from tests.support.slurm.processes import of_cluster

pytestmark = pytest.mark.slow

SLOW = 0.7
"""Seconds per chunk; a shard has 13 chunks."""

Settings = dict[str, str | int | list[str]]


@dataclass(frozen=True)
class Trial:
    """A run to disturb, and the undisturbed run that it must equal in the end."""

    cluster: Cluster
    data: Path
    model: Path
    folder: Path
    undisturbed: RunFolder

    def submit(self, *more: object, seconds: float = SLOW, **kinds: dict[str, list[object]]) -> RunFolder:
        """Submit the run; `seconds` and `kinds` as in tests/support/faulty/."""
        environment = faults(self.folder / "faults", seconds, **kinds)
        return submit(self.cluster, self.data, self.model, self.folder, *more, **environment)

    def profile(
        self, prepare: Settings | None = None, merge: Settings | None = None, **embed: str | int | list[str]
    ) -> tuple[object, ...]:
        """Options for a site profile like `test`, with these settings."""
        base: Settings = {"partition": "cpu", "cpus": 1, "mem": 1500, "time": 60}
        tables = {"all": base, "prepare": prepare, "embed": {"partition": "gpu", "gpus": 1, **embed}, "merge": merge}
        site = self.folder / "site.toml"
        with site.open("w") as file:
            for name, settings in tables.items():
                lines = [f"{key} = {json.dumps(value)}" for key, value in (settings or {}).items()]
                print(f"[{name}]", *lines, sep="\n", file=file)
        return "--profile", site

    def wait_whole(self, run: RunFolder) -> None:
        """Wait until the run is merged, and compare it."""
        wait_ended(self.cluster, run)
        assert run.success.exists(), logs(run)
        assert snapshot(run) == snapshot(self.undisturbed)

    def finish(self, run: RunFolder, *more: object) -> str:
        """Wait for the end, then rerun, which touches no finished shard. Returns the rerun's output."""
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
    """A node to lose, used by this test alone; restored at the end."""
    with (cluster.folder / "n5.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield "n5"
        if "down" in cluster.run("sinfo", "-h", "-n", "n5", "-p", "fragile", "-o", "%t"):
            cluster.restore_node("n5")


def wait_chunks(run: RunFolder, shard: int, chunks: int) -> None:
    """Wait until at least `chunks` chunks of a shard are durable."""
    wait_until(lambda: len(durable_chunks(run.shard(shard))) >= chunks, describe=lambda: logs(run))


def outcomes(run: RunFolder, shard: int) -> list[str]:
    """How each attempt at a shard ended, oldest first."""
    return [attempt.outcome for attempt in Attempts(run, "embed", shard).attempts()]


def log_of(run: RunFolder, shard: int) -> str:
    return (run.logs / f"embed-{shard:05d}.log").read_text()


def running(cluster: Cluster, run: RunFolder) -> dict[str, str]:
    """The node of each running task of embed, by index."""
    lines = cluster.run("squeue", "-h", "-r", "-t", "running", "-j", embed_job(run), "-o", "%K %N").splitlines()
    return dict(map(str.split, lines))


def embed_job(run: RunFolder) -> str:
    return jobs_of(run, "embed")[-1] if jobs_of(run, "embed") else ""


def shard_on(cluster: Cluster, run: RunFolder, node: str) -> int:
    """Wait for a shard that runs on a node and has two chunks done."""
    wait_until(lambda: node in running(cluster, run).values(), describe=lambda: f"{live(cluster, run)}\n{logs(run)}")
    shard = next(int(index) for index, where in running(cluster, run).items() if where == node)
    wait_chunks(run, shard, 2)
    return shard


def send_signal(cluster: Cluster, run: RunFolder, signal: str, index: int = 1) -> None:
    """Send a signal to the process of a task of embed."""
    cluster.run("scancel", "--batch", f"--signal={signal}", f"{embed_job(run)}_{index}")


def stand_in_scontrol(folder: Path, does: str) -> str:
    """PATH with a stand-in scontrol that runs a line of shell first, then the real scontrol."""
    stand_in = folder / "scontrol"
    stand_in.write_text(f'#!/bin/sh\n{does}\nexec {shutil.which("scontrol")} "$@"\n')
    stand_in.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def stop_at(step: int) -> str:
    """A line of shell that stops a job's processes at a durable step, in its first attempt only."""
    path = python_path(SUPPORT / "crash")["PYTHONPATH"]
    return f'[ "${{SLURM_RESTART_COUNT:-0}}" != 0 ] || export PYTHONPATH={path} EMBEDKIT_TEST_STOP_AT={step}'


def record_earlier_starts(run: RunFolder, shard: int, folder: Path) -> None:
    """Add two earlier starts of other jobs, which did not record their end, to a shard's attempts."""
    earlier = RunFolder(folder / "earlier")
    earlier.logs.mkdir(parents=True)
    before = current_job()
    for job in ("900001", "900002"):
        enter_job(JobContext(name=f"{job}_{shard}", id=job))
        Attempts(earlier, "embed", shard).add("started", 0, "")
    enter_job(before)
    name = f"embed-{shard:05d}.attempts.jsonl"
    (run.logs / name).write_bytes((earlier.logs / name).read_bytes() + (run.logs / name).read_bytes())


def is_stopped(cluster: Cluster, job: str) -> bool:
    """Whether a process of a job was stopped."""
    for process in of_cluster(cluster.folder):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if process.status() == psutil.STATUS_STOPPED and process.environ().get("SLURM_JOB_ID") == job:
                return True
    return False


def test_cancelled_task_stays_ended_until_a_rerun(trial: Trial) -> None:
    run = trial.submit(seconds=0.4)
    wait_chunks(run, 1, 2)
    trial.cluster.run("scancel", f"{embed_job(run)}_1")
    wait_ended(trial.cluster, run)
    assert outcomes(run, 1) == ["cancelled"]
    assert f"cancelled; to run it again: embedkit rerun {run.path}" in log_of(run, 1)
    assert "embed shards 1" in trial.finish(run)
    assert "chunks are durable already" in log_of(run, 1)


def test_preempted_tasks_are_requeued_and_continue(trial: Trial) -> None:
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


def test_tasks_of_a_lost_node_continue_on_a_different_node(trial: Trial, fragile_node: str) -> None:
    run = trial.submit(*trial.profile(partition="fragile"))
    shard = shard_on(trial.cluster, run, fragile_node)
    trial.cluster.lose_node(fragile_node)
    assert "nothing to submit" in rerun(trial.cluster, run).stdout
    trial.wait_whole(run)
    assert outcomes(run, shard) == ["failed", "finished"]
    assert "chunks are durable already" in log_of(run, shard)
    assert len(jobs_of(run)) == 3


def test_rerun_excludes_the_node_with_which_a_task_ended(trial: Trial, fragile_node: str) -> None:
    """Slurm requeues by itself. If a site or a person forbids that, the task ends in the state NODE_FAIL."""
    run = trial.submit(*trial.profile(partition="fragile"))
    shard = shard_on(trial.cluster, run, fragile_node)
    for index in running(trial.cluster, run):
        trial.cluster.run("scontrol", "update", f"JobId={embed_job(run)}_{index}", "Requeue=0")
    trial.cluster.lose_node(fragile_node)
    wait_ended(trial.cluster, run)
    trial.cluster.restore_node(fragile_node)
    # The third start without an exit record, but the accounting says NODE_FAIL: no repeat failure of the shard.
    record_earlier_starts(run, shard, trial.folder)
    said = trial.finish(run)
    assert f"without nodes {fragile_node}, which failed" in said
    assert "it ended without an exit record" in said
    assert [attempt.node for attempt in Attempts(run, "embed", shard).attempts()[2:]] == [fragile_node, "n6"]


def test_shard_longer_than_the_time_limit_takes_more_attempts(trial: Trial) -> None:
    """Slurm sends the warning 60 to 90 s before the limit of two minutes; a shard takes 80 s."""
    run = trial.submit(*trial.profile(time=2, signal_seconds=60), seconds=6)
    trial.wait_whole(run)
    for shard in range(3):
        assert outcomes(run, shard)[-1] == "finished"
        assert set(outcomes(run, shard)[:-1]) == {"stopped"}
        assert "chunks are durable already" in log_of(run, shard)
        # The chunk in hand is finished in the time that is left, and no chunk is dropped.
        warning = r"USR2: \d+ s left, the chunk in hand needs about \d s more: it is finished first"
        assert re.search(warning, log_of(run, shard))
        assert "the work in hand is dropped" not in log_of(run, shard)
    assert len(jobs_of(run)) == 3


def test_a_task_that_its_time_limit_ends_is_run_again(trial: Trial) -> None:
    """The set-up of its node hangs, so nothing reacts to the warning. A profile's shortest limit is two minutes."""
    hangs = '[ "$SLURM_ARRAY_TASK_ID" != 1 ] || sleep 300'
    run = trial.submit(*trial.profile(time=2, signal_seconds=60, before=[hangs]), seconds=0)
    trial.cluster.run("scontrol", "update", f"JobId={embed_job(run)}_1", "TimeLimit=1")
    wait_ended(trial.cluster, run)
    assert "TIMEOUT" in trial.cluster.run("scontrol", "-o", "show", "job", f"{embed_job(run)}_1")
    assert "DUE TO TIME LIMIT" in log_of(run, 1)
    assert "embed shards 1" in trial.finish(run, *trial.profile())


def test_a_task_over_its_memory_is_run_again_with_half_as_much_again(trial: Trial) -> None:
    run = trial.submit(*trial.profile(mem=700), seconds=0, shards={"1": ["memory", 1]})
    said = trial.finish(run)
    assert "1050 MB of memory per task instead of 700: shards 1 ran out of it" in said
    asked = trial.cluster.run("scontrol", "-o", "show", "job", f"{embed_job(run)}_1")
    assert "mem=1050M" in asked


def test_a_hanging_task_ends_and_is_run_again(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDKIT_WATCHDOG_SECONDS", "8")
    run = trial.submit(seconds=0, shards={"1": ["hang", 1]})
    trial.finish(run)
    assert "no progress for 8 s, while embedding ids" in log_of(run, 1)
    assert "chunks are durable already" in log_of(run, 1)


def test_suspended_task_is_not_ended_by_its_watchdog(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause is longer than the watchdog's limit and its grace together."""
    monkeypatch.setenv("EMBEDKIT_WATCHDOG_SECONDS", "4")
    run = trial.submit()
    wait_chunks(run, 1, 2)
    task = f"{embed_job(run)}_1"
    trial.cluster.run("scontrol", "suspend", task)
    time.sleep(10)
    assert "JobState=SUSPENDED" in trial.cluster.run("scontrol", "-o", "show", "job", task)
    trial.cluster.run("scontrol", "resume", task)
    trial.wait_whole(run)
    assert outcomes(run, 1) == ["finished"]
    assert "no progress" not in log_of(run, 1)


def test_repeat_failure_is_named_and_not_submitted_again(trial: Trial, tmp_path: Path) -> None:
    fault = faults(tmp_path / "faults", always={"1": ["raise", 3]})
    run = trial.submit(seconds=0, always={"1": ["raise", 3]})
    for _ in range(2):
        wait_ended(trial.cluster, run)
        assert "embed shards 1" in rerun(trial.cluster, run, **fault).stdout
    wait_ended(trial.cluster, run)
    whole = file_times(run, [0, 2])
    for _ in range(2):
        named = rerun(trial.cluster, run, check=False)
        assert named.returncode == 1
        assert "nothing to submit" in named.stdout
        assert "shard 1: the engine failed on rows" in named.stderr
        assert "CUDA error: an illegal memory access was encountered" in named.stderr
        assert f"embedkit rerun {run.path} --shard 1" in named.stderr
    assert not live(trial.cluster, run)
    assert "embed shards 1" in trial.finish(run, "--shard", 1)
    assert file_times(run, [0, 2]) == whole


@pytest.mark.parametrize(
    ("kind", "said"),
    [("raise", "CUDA error: an illegal memory access was encountered"), ("exit", r"shard 1: [1-9]\d+ of \d+ tokens")],
)
def test_a_task_that_fails_is_run_again(trial: Trial, kind: str, said: str) -> None:
    run = trial.submit(seconds=0, shards={"1": [kind, 1]})
    wait_ended(trial.cluster, run)
    assert outcomes(run, 1) == ["failed"]
    assert re.search(said, log_of(run, 1))
    assert "embed shards 1" in trial.finish(run)
    assert "chunks are durable already" in log_of(run, 1)


def test_task_that_scontrol_refuses_to_requeue_is_rerun(trial: Trial, tmp_path: Path) -> None:
    path = stand_in_scontrol(tmp_path, '[ "$1" = requeue ] && echo "Job is on fire" >&2 && exit 1')
    fault = faults(tmp_path / "faults", SLOW) | {"PATH": path}
    run = submit(trial.cluster, trial.data, trial.model, tmp_path, **fault)
    wait_chunks(run, 1, 2)
    send_signal(trial.cluster, run, "USR2")
    wait_ended(trial.cluster, run)
    assert f"not requeued: Job is on fire; to run it again: embedkit rerun {run.path}" in log_of(run, 1)
    assert "ExitCode=75:0" in trial.cluster.run("scontrol", "-o", "show", "job", f"{embed_job(run)}_1")
    trial.finish(run)


def test_third_stop_without_progress_is_not_requeued(trial: Trial) -> None:
    """A second warning drops the chunk in hand, which would never end."""
    run = trial.submit(seconds=0, always={"1": ["hang", 9]})
    for attempt in range(3):
        wait_until(lambda n=attempt: len(list((trial.folder / "faults").iterdir())) > n, describe=lambda: logs(run))
        send_signal(trial.cluster, run, "USR2")
        wait_until(lambda n=attempt: log_of(run, 1).count("it is finished first") > n, describe=lambda: logs(run))
        send_signal(trial.cluster, run, "USR2")
    wait_ended(trial.cluster, run)
    assert outcomes(run, 1) == ["stopped", "stopped", "failed"]
    arithmetic = r"start \d+ s, one chunk more than \d+ s, stopped after \d+ s by SIGUSR2"
    assert re.search(rf"not requeued: stopped 3 times with nothing new done: {arithmetic}", log_of(run, 1))
    assert re.search(rf"shard 1: stopped 3 times with nothing new done: {arithmetic}", trial.finish(run))


def test_task_stopped_before_it_is_up_continues(trial: Trial) -> None:
    """A preemption or a warning may come while modules are still being loaded."""
    run = trial.submit(*trial.profile(before=[f"touch {trial.folder}/up", "sleep 3"]), seconds=0)
    wait_until((trial.folder / "up").exists)
    send_signal(trial.cluster, run, "USR2")
    trial.wait_whole(run)
    assert len(jobs_of(run)) == 3  # requeued, not submitted again


def test_tasks_continue_while_the_controller_is_down(trial: Trial) -> None:
    cluster = clusters.start()
    try:
        mine = replace(trial, cluster=cluster)
        run = mine.submit()
        wait_chunks(run, 1, 2)
        cluster.stop_controller()
        refused = rerun(cluster, run, check=False)
        assert refused.returncode == 1
        assert "squeue failed" in refused.stderr
        wait_until(lambda: all(run.shard_manifest(shard).exists() for shard in range(3)))
        cluster.start_controller()
        mine.wait_whole(run)
        assert len(jobs_of(run)) == 3
    finally:
        cluster.stop()


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_ended_prepare_is_submitted_again_with_its_successors(trial: Trial, signal: str) -> None:
    run = trial.submit(*trial.profile(prepare={"before": [stop_at(15)]}), seconds=0)
    (prepare,) = jobs_of(run, "prepare")
    wait_until(lambda: is_stopped(trial.cluster, prepare), describe=lambda: logs(run))
    trial.cluster.run("scancel", *(() if signal == "TERM" else ("--batch", "--signal=KILL")), prepare)
    wait_ended(trial.cluster, run)
    assert "CANCELLED" in trial.cluster.run("scontrol", "-o", "show", "job", embed_job(run))
    merge_log = logs(run, ["merge.log"])
    assert "prepare has not finished" in merge_log
    assert f"embedkit rerun {run.path}" in merge_log
    assert ("cancelled; to run it again" in logs(run, ["prepare.log"])) == (signal == "TERM")
    assert not is_stopped(trial.cluster, prepare)
    before = part_times(run)
    assert before
    said = rerun(trial.cluster, run, *trial.profile()).stdout
    assert ": prepare" in said
    assert "embed shards 0-2" in said
    assert ": merge" in said
    trial.wait_whole(run)
    assert before.items() <= part_times(run).items()


def test_cancelled_prepare_is_not_reported_as_a_failure(trial: Trial, tmp_path: Path) -> None:
    path = stand_in_scontrol(tmp_path, "sleep 0.5")
    run = trial.submit(*trial.profile(prepare={"before": [stop_at(12), f"export PATH={path}"]}), seconds=0)
    (prepare,) = jobs_of(run, "prepare")
    wait_until(lambda: is_stopped(trial.cluster, prepare), describe=lambda: logs(run))
    trial.cluster.run("scancel", prepare)
    wait_ended(trial.cluster, run)
    said = logs(run, ["prepare.log"])
    assert f"cancelled; to run it again: embedkit rerun {run.path}" in said
    assert "a worker process" not in said


def part_times(run: RunFolder) -> dict[str, int]:
    """When each part whose manifest is there was written, ns."""
    names = [path.stem for path in run.parts.glob("part-*.json")]
    return {name: (run.extracted / f"{name}.parquet").stat().st_mtime_ns for name in names}


def test_a_merge_whose_node_is_lost_is_made_by_its_next_start(trial: Trial, fragile_node: str) -> None:
    merge: Settings = {"partition": "fragile", "nodelist": fragile_node, "before": [stop_at(6)]}
    run = trial.submit(*trial.profile(merge=merge), seconds=0)
    wait_until(lambda: is_stopped(trial.cluster, jobs_of(run, "merge")[0]), describe=lambda: logs(run))
    trial.cluster.lose_node(fragile_node)
    assert "nothing to submit" in rerun(trial.cluster, run).stdout
    trial.cluster.restore_node(fragile_node)
    trial.wait_whole(run)
    assert len(jobs_of(run)) == 3


def test_a_killed_merge_alone_is_run_again(trial: Trial) -> None:
    run = trial.submit(*trial.profile(merge={"before": [stop_at(6)]}), seconds=0)
    wait_until(lambda: is_stopped(trial.cluster, jobs_of(run, "merge")[0]), describe=lambda: logs(run))
    trial.cluster.run("scancel", "--batch", "--signal=KILL", jobs_of(run, "merge")[0])
    assert ": merge" in trial.finish(run, *trial.profile())
    assert len(jobs_of(run)) == 4
