"""status, logs and cancel on a real cluster: what an operator sees."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from embedkit.embed.journal import durable_chunks
from embedkit.run import RunFolder
from jobs.slurm.squeue import queue
from tests.conftest import EMBEDKIT, ROOT, embedkit, snapshot
from tests.support.slurm import cluster as clusters
from tests.support.slurm.chains import faults, live, logs, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow


def status(cluster: Cluster, run: RunFolder, *more: object, **environment: str) -> dict[str, Any]:
    """`embedkit status --json`, with the stages and shards by name."""
    done = embedkit("status", run.path, "--json", *more, check=False, **{**cluster.environment, **environment})
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["stage"] == "done" else 1)
    found["by_stage"] = {stage["stage"]: stage for stage in found["stages"]}
    return found


def states(found: dict[str, Any]) -> list[str]:
    return [shard["state"] for shard in found["shards"]]


def screen(cluster: Cluster, run: RunFolder, **environment: str) -> str:
    return embedkit("status", run.path, code=1, **{**cluster.environment, **environment}).stdout


def recorder(folder: Path, *programs: str, body: str = 'exec "$real" "$@"') -> dict[str, str]:
    """A PATH with stand-ins that record their calls and then run `body`, by default the real program."""
    folder.mkdir()
    for program in programs:
        path = folder / program
        real = shutil.which(program, path=clusters.SEARCH)
        path.write_text(f'#!/bin/sh\nreal={real}\necho "{program} $@" >> "{folder}/calls"\n{body}\n')
        path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("which", ["cluster", "plain_cluster"])
def test_failures_are_shown_with_cause_node_and_log(
    which: str,
    request: pytest.FixtureRequest,
    small_chats: Path,
    tokenizer_only: Path,
    hash_run: RunFolder,
    tmp_path: Path,
) -> None:
    """Each way to fail is shown with its cause, node and log, with accounting or without."""
    cluster: Cluster = request.getfixturevalue(which)
    ways = {"0": ["raise", 1], "1": ["kill", 1], "2": ["hang", 1]}
    profile = ROOT / "slurm_templates" / "test.toml"
    if which == "plain_cluster":  # it has one partition
        profile = tmp_path / "plain.toml"
        profile.write_text("[all]\ncpus = 1\nmem = 1500\n[embed]\ngpus = 1\n")
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", profile)
    run = submit(*asked, **faults(tmp_path / "faults", 0.2, shards=ways))
    begin = status(cluster, run)
    assert begin["is_alive"]
    assert sum(begin["by_stage"]["embed"]["tasks"].values()) == 3
    assert begin["by_stage"]["merge"]["tasks"] == {"pending": 1}
    assert begin["by_stage"]["merge"]["reason"] == "Dependency"

    def is_expected() -> bool:
        two_chunks = len(durable_chunks(run.shard(2))) == 2
        return two_chunks and states(status(cluster, run)) == ["failed", "failed", "running"]

    wait_until(is_expected, describe=lambda: f"{screen(cluster, run)}\n{logs(run)}")
    time.sleep(6)  # sacct lags
    found = status(cluster, run, "--hung-after", 3)
    raised, killed, hangs = found["shards"]
    assert "CUDA error: an illegal memory access" in raised["why"]
    assert killed["why"].startswith("it ended without an exit record")
    assert hangs["alert"] == "hung"
    assert hangs["quiet_seconds"] > 3
    assert hangs["slurm_state"] == "RUNNING"
    for shard in (raised, killed, hangs):
        assert shard["node"].startswith("n")
        assert shard["job"].endswith(f"_{shard['shard']}")
        assert shard["log"] == str(run.logs / f"embed-{shard['shard']:05d}.log")
        assert shard["tokens_done"] > 0
        assert shard["gpu_hours"] > 0
    assert found["accounting"] is (which == "cluster")
    if which == "cluster":
        assert (raised["slurm_state"], raised["exit_code"]) == ("FAILED", "1:0")
        assert (killed["slurm_state"], killed["exit_code"]) == ("FAILED", "0:9")
        assert not found["notes"]
    else:
        assert "sacct does not answer" in found["notes"][0]
    text = embedkit("status", run.path, "--hung-after", 3, code=1, **cluster.environment).stdout
    rows = [line.split() for line in text.splitlines()]
    table = rows[rows.index(next(row for row in rows if row[:2] == ["shard", "state"])) + 1 :]
    assert [row[:2] for row in table[:3]] == [["0", "failed"], ["1", "failed"], ["2", "hung"]]
    assert f"scontrol requeue {hangs['job']}" in text
    assert f"rerun {run.path}" in text
    assert "2 failed" in text

    failed = embedkit("logs", run.path, "--failed", "--lines", 5, **cluster.environment).stdout
    assert "==> " in failed
    assert "CUDA error" in failed
    assert "embed-00002.log" not in failed
    shard = ["--shard", 2, "--lines", 100]
    one = embedkit("logs", run.path, *shard, new_interpreter=True, **cluster.environment).stdout
    assert "shard 2:" in one
    assert "embed-00001.log" not in one

    said = embedkit("cancel", run.path, new_interpreter=True, **cluster.environment).stdout
    assert "cancelled: 1 embed running" in said
    assert "cancelled: 1 merge pending" in said
    wait_ended(cluster, run)
    wait_until(lambda: "unknown" not in states(status(cluster, run)))
    ended = status(cluster, run)
    assert states(ended) == ["failed", "failed", "cancelled"]
    assert ended["by_stage"]["merge"]["tasks"] == {"cancelled": 1}
    assert not ended["is_alive"]
    assert "no job of this run is queued or running" in embedkit("cancel", run.path, **cluster.environment).stdout

    rerun(cluster, run)
    wait_ended(cluster, run)
    assert status(cluster, run)["stage"] == "done"
    assert [shard["attempts"] for shard in status(cluster, run)["shards"]] == [2, 2, 2]
    assert snapshot(run) == snapshot(hash_run)


def test_slow_shard_is_found_by_the_median_of_the_others(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    environment = faults(tmp_path / "faults", 1.5, slow={"3": 11.0})  # judged after 30 s of about 80
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--shards", 5, "--num-gpus", 5, **environment)
    marked: set[int] = set()
    lines: list[str] = []

    # JSON and screen are of two moments: the shard may end between them.
    def both_say_so() -> bool:
        marked.update(shard["shard"] for shard in status(cluster, run)["shards"] if shard["alert"] == "slow")
        lines.extend(line for line in screen(cluster, run).splitlines() if line.split()[:2] == ["3", "slow"])
        return bool(marked and lines)

    wait_until(both_say_so, describe=lambda: f"{screen(cluster, run)}\n{logs(run)}")
    assert marked == {3}
    assert "of the median's speed" in lines[0]
    embedkit("cancel", run.path, **cluster.environment)


def test_status_works_while_the_controller_is_down(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    cluster = clusters.start(accounting=False)
    try:
        profile = tmp_path / "plain.toml"
        profile.write_text("[all]\ncpus = 1\nmem = 1500\n[embed]\ngpus = 1\n")
        environment = faults(tmp_path / "faults", 4.0, always={"0": ["raise", 1]})
        asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", profile)
        run = submit(*asked, "--num-gpus", 2, **environment)
        wait_until(lambda: len(durable_chunks(run.shard(1))) > 0 and "failed" in states(status(cluster, run)))
        cluster.stop_controller()
        began = time.monotonic()
        found = status(cluster, run)
        assert time.monotonic() - began < 60
        assert states(found)[0] == "failed"  # its own exit record is enough
        assert "unknown" in states(found)
        (note,) = (note for note in found["notes"] if note.startswith("squeue failed: "))
        assert note.endswith("; it is not known whether jobs are queued or running")
        assert found["is_alive"]  # as far as one knows: watching goes on
        cluster.start_controller()
        wait_until(lambda: "unknown" not in states(status(cluster, run)), describe=lambda: screen(cluster, run))
    finally:
        cluster.stop()


def test_status_works_with_an_empty_accounting(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """Of each of Slurm's commands it calls two, once."""
    ways = {"0": ["raise", 1], "1": ["kill", 1]}
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, **faults(tmp_path / "faults", shards=ways))
    wait_ended(cluster, run)
    path = recorder(tmp_path / "empty", "sacct", body="exit 0")
    wait_until(lambda: "unknown" not in states(status(cluster, run, **path)))
    found = status(cluster, run, **path)
    assert states(found) == ["failed", "failed", "done"]
    assert "CUDA error" in found["shards"][0]["why"]
    assert found["by_stage"]["merge"]["tasks"] == {"failed": 1}
    assert "shard" in found["by_stage"]["merge"]["why"]

    # While jobs run, status calls squeue once and sacct once.
    rerun(cluster, run)
    path = recorder(tmp_path / "calls", "squeue", "sacct", "scontrol", "sinfo", "sbatch", "sacctmgr")
    status(cluster, run, **path)
    calls = (tmp_path / "calls" / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["squeue", "sacct"]
    wait_ended(cluster, run)


def test_watching_and_following_end_with_the_run(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    environment = faults(tmp_path / "faults", 0.3)
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, **environment)
    following = subprocess.Popen(
        [*EMBEDKIT, "logs", str(run.path), "--follow"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | cluster.environment,
    )
    done = embedkit("status", run.path, "--watch", **cluster.environment)
    assert "merge    done" in done.stdout
    said, _ = following.communicate(timeout=60)
    lines = said.splitlines()
    assert following.returncode == 0
    for name in ("prepare", "embed-00000", "embed-00002", "merge"):
        assert any(line.startswith(f"{name} ") for line in lines), said
    whole = (run.logs / "embed-00001.log").read_text().splitlines()
    assert [line.partition(" ")[2].lstrip() for line in lines if line.startswith("embed-00001 ")] == [
        line.lstrip() for line in whole
    ]


def test_tasks_cancelled_before_their_start_are_rerun(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    profile = tmp_path / "held.toml"
    profile.write_text("[all]\ncpus = 1\nmem = 1500\n[all.sbatch]\nhold = true\n[embed]\ngpus = 1\n")
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--profile", profile)
    held = status(cluster, run)
    assert held["by_stage"]["prepare"]["tasks"] == {"held": 1}
    assert held["by_stage"]["prepare"]["reason"] == "JobHeldUser"
    embedkit("cancel", run.path, **cluster.environment)
    assert not live(cluster, run)
    found = status(cluster, run)
    assert found["by_stage"]["prepare"]["tasks"] == {"cancelled": 1}
    assert found["by_stage"]["embed"]["tasks"] == {"cancelled": 3}
    rerun(cluster, run, "--profile", "test")
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(hash_run)


def test_every_task_of_an_array_with_a_step_is_seen_in_the_queue(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue -r of Slurm 22.05 leaves out the last one."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    indices = [*range(0, 35, 2), *range(100, 800, 7)]
    spec = ",".join(map(str, indices))
    job = cluster.run(
        "sbatch", "--parsable", "--hold", "-p", "cpu", f"--array={spec}", "--wrap", "true", "-o", "/dev/null"
    )
    try:
        assert sorted(task.index or 0 for task in queue() if task.job == job) == indices
    finally:
        cluster.run("scancel", job)
