"""The next run of a data set that has changed, submitted as the earlier one was."""

import re
import shlex
from pathlib import Path

import pytest

from embedkit.check.verify import verify
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, snapshot, write_chats
from tests.support.slurm.chains import faults, logs, rerun, submit, wait_ended
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow


def test_an_update_with_a_killed_task_ends_like_a_run_from_scratch(
    cluster: Cluster, tokenizer_only: Path, tmp_path: Path
) -> None:
    """Its commands are those that update and the failed merge print."""
    rows = [chat(f"{i} river", f"{i} stone") for i in range(400)]
    changed = [*rows[250:], *(chat(f"{i} river", f"{i} pebble") for i in range(150)), *rows[150:248]]
    data = [write_chats(tmp_path / f"{i}.parquet", made) for i, made in enumerate((rows, changed))]
    old = submit(cluster, data[0], tokenizer_only, tmp_path, name="old")
    wait_ended(cluster, old)
    asked = ("update", old.path, "--dataset", data[1], "--run-name", "next", "--shards", 3)
    said = embedkit(*asked, **cluster.environment).stdout
    assert "since old: 248 rows kept, 150 changed, 0 added, 2 removed" in said
    next_command = re.search(r"Next: embedkit (submit --resume --profile .*)\n", said)
    assert next_command
    kill = faults(tmp_path / "faults", always={str(shard): ["kill", 1] for shard in range(3)})
    embedkit(*shlex.split(next_command[1]), "--num-gpus", 4, **cluster.environment, **kill)
    run = RunFolder(tmp_path / "next")
    wait_ended(cluster, run)
    assert not run.success.exists()
    assert "killed" in embedkit("status", run.path, code=1, **cluster.environment).stdout.lower()
    rerun(cluster, run, **kill)
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    embedkit("run", *hash_request(data[1], tokenizer_only, tmp_path, "scratch"))
    one, other = snapshot(run), snapshot(RunFolder(tmp_path / "scratch"))
    assert one.pop("plan.json") != other.pop("plan.json")
    assert one == other
    report = verify(run)
    assert (report.ok, report.copied) == (True, 248)
