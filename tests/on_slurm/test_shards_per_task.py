"""shards_per_task: an array task embeds several shards one after another, and its engine starts once."""

import json
import signal
from pathlib import Path

import pytest

from embedkit.embed.journal import durable_chunks
from embedkit.run import RunFolder
from jobs.records.attempts import Attempts
from jobs.records.submissions import Submissions
from tests.conftest import embedkit, snapshot
from tests.on_slurm.test_groups import PAIRS, array_of, outcomes, workers
from tests.support.slurm.chains import faults, file_times, logs, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

IN_TURN = """\
[all]
partition = "cpu"
cpus = 1
mem = 1500
time = 60
[embed]
partition = "gpu"
gpus = 1
shards_per_task = 3
signal_seconds = 60
"""
STARTED, USED_AGAIN = "INFO engine: ", "the engine of the shard before is used again"


@pytest.fixture
def in_turn(tmp_path: Path) -> Path:
    path = tmp_path / "in-turn.toml"
    path.write_text(IN_TURN)
    return path


def engines(run: RunFolder, shards: range) -> list[str]:
    """Which engine each shard got: a new one, or that of the shard before; of its newest attempts."""
    texts = [(run.logs / f"embed-{shard:05d}.log").read_text() for shard in shards]
    return ["again" if text.rfind(USED_AGAIN) > text.rfind(STARTED) else "new" for text in texts]


def shards_of_status(cluster: Cluster, run: RunFolder) -> list[dict[str, object]]:
    """The shards as `status --json` shows them, which ends with 0 once the run is merged."""
    code = 0 if run.success.exists() else 1
    done = embedkit("status", run.path, "--json", code=code, **cluster.environment)
    shards: list[dict[str, object]] = json.loads(done.stdout)["shards"]
    return shards


def test_a_task_embeds_three_shards_with_one_engine(
    cluster: Cluster, in_turn: Path, small_chats: Path, tokenizer_only: Path, five_shards: RunFolder, tmp_path: Path
) -> None:
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", in_turn, "--shards", 5)
    run = submit(*asked, **faults(tmp_path / "faults", 0.4))
    assert array_of(run) == "0,3%4"
    wait_until(lambda: len(durable_chunks(run.shard(0))) >= 2, describe=lambda: logs(run))
    shown = shards_of_status(cluster, run)
    assert [shown[0]["state"], shown[0]["alert"]] == ["running", ""]
    for shard in (1, 2):
        why = "its turn comes after shard 0 of the same task"
        assert [shown[shard][name] for name in ("state", "alert", "why")] == ["pending", "", why]
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert snapshot(run) == snapshot(five_shards)
    assert [outcomes(run, shard) for shard in range(5)] == [["finished"]] * 5
    assert engines(run, range(5)) == ["new", "again", "again", "new", "again"]
    shown = shards_of_status(cluster, run)
    assert [(shard["state"], shard["attempts"]) for shard in shown] == [("done", 1)] * 5
    report = json.loads(embedkit("report", run.path, "--json", **cluster.environment).stdout)
    attempts = [one for one in report["attempts"] if one["stage"] == "embed"]
    assert [one["gpus"] for one in attempts] == [1.0] * 5
    for before, after in ((0, 1), (1, 2), (3, 4)):  # events have whole seconds
        assert attempts[before]["ended"] <= attempts[after]["started"] + 2


def test_a_task_killed_in_its_second_shard_loses_only_that(
    cluster: Cluster, in_turn: Path, small_chats: Path, tokenizer_only: Path, five_shards: RunFolder, tmp_path: Path
) -> None:
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", in_turn, "--shards", 5)
    run = submit(*asked, **faults(tmp_path / "faults", 0.6))
    wait_until(lambda: len(durable_chunks(run.shard(1))) >= 2, describe=lambda: logs(run))
    cluster.run("scancel", "--signal=KILL", "--full", f"{Submissions(run).jobs('embed')[-1]}_0")
    wait_ended(cluster, run)
    assert [run.shard_manifest(shard).exists() for shard in range(5)] == [True, False, False, True, True]
    assert Attempts(run, "embed", 2).attempts() == []

    def states() -> list[object]:
        return [shard["state"] for shard in shards_of_status(cluster, run)]

    wait_until(lambda: states() == ["done", "cancelled", "cancelled", "done", "done"], 60, lambda: str(states()))
    before = file_times(run, [0, 3, 4])
    said = rerun(cluster, run, "--dry-run").stdout
    assert "shards_per_task = 3: the engine starts once for 2 shards (1 fewer, 25 to 90 s each)" in said
    rerun(cluster, run)
    assert array_of(run) == "1%4"
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(five_shards)
    assert file_times(run, [0, 3, 4]) == before
    assert Attempts(run, "embed", 1).attempts()[1].started.done >= 2
    assert engines(run, range(1, 3)) == ["new", "again"]


def test_two_workers_share_the_shards_of_their_task(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, five_shards: RunFolder, tmp_path: Path
) -> None:
    profile = tmp_path / "pairs.toml"
    profile.write_text(PAIRS, encoding="utf-8")
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", profile, "--shards", 5)
    run = submit(*asked, "--shards-per-task", 2, **faults(tmp_path / "faults", 0.3))
    assert array_of(run) == "0,4%2"
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(five_shards), logs(run)
    assert [outcomes(run, shard) for shard in range(5)] == [["finished"]] * 5
    assert engines(run, range(5)) == ["new", "new", "again", "again", "new"]


def test_a_killed_worker_fails_its_shard_and_no_other(
    cluster: Cluster, in_turn: Path, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", in_turn, "--shards", 3)
    run = submit(*asked, **faults(tmp_path / "faults", 0.3))
    wait_until(lambda: len(durable_chunks(run.shard(1))) >= 2, describe=lambda: logs(run))
    (worker,) = workers(run).values()
    worker.send_signal(signal.SIGKILL)
    wait_ended(cluster, run)
    assert [outcomes(run, shard) for shard in range(3)] == [["finished"], ["failed"], ["finished"]]
    assert "embed-00001 failed: it ended without logging an error (killed?)" in logs(run)
    assert engines(run, range(3)) == ["new", "again", "new"]


def test_a_stopped_task_is_requeued_for_what_is_left(
    cluster: Cluster, in_turn: Path, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", in_turn, "--shards", 3)
    run = submit(*asked, **faults(tmp_path / "faults", 1.0))
    wait_until(lambda: len(durable_chunks(run.shard(1))) >= 2, describe=lambda: logs(run))
    cluster.run("scancel", "--signal=USR2", "--batch", f"{Submissions(run).jobs('embed')[-1]}_0")
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert [outcomes(run, shard) for shard in range(3)] == [["finished"], ["stopped", "finished"], ["finished"]]
    assert Attempts(run, "embed", 1).attempts()[1].started.done >= 2


def test_a_shard_that_does_not_fit_the_time_is_left(
    cluster: Cluster, in_turn: Path, small_chats: Path, tokenizer_only: Path, five_shards: RunFolder, tmp_path: Path
) -> None:
    """Of three minutes, 60 s are for the signal and 75 s for its early arrival: two shards fit, and no third."""
    in_turn.write_text(IN_TURN + "time = 3\n", encoding="utf-8")
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", in_turn, "--shards", 5)
    run = submit(*asked, **faults(tmp_path / "faults", 1.9))
    wait_ended(cluster, run)
    assert [run.shard_manifest(shard).exists() for shard in range(5)] == [True, True, False, True, True], logs(run)
    assert Attempts(run, "embed", 2).attempts() == []
    assert "shard 2 does not begin: it takes about" in (run.logs / "embed-00001.log").read_text()
    assert "shards 2 have not begun" in (run.logs / "embed-job-00000.log").read_text()
    task = f"{Submissions(run).jobs('embed')[-1]}_0"
    assert cluster.run("sacct", "-n", "-X", "-o", "State,ExitCode", "-j", task).split() == ["COMPLETED", "0:0"]
    rerun(cluster, run)
    assert array_of(run) == "2%4"
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(five_shards)
