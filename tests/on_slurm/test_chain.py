"""A run through Slurm gives the same files as a local one."""

import json
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, snapshot, write_chats
from tests.support.slurm.chains import jobs_of, logs, rerun, submit, wait_ended
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow


def test_a_submitted_run_gives_the_files_of_a_local_one(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    run = submit(cluster, small_chats, tokenizer_only, tmp_path)
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert snapshot(run) == snapshot(hash_run)
    again = rerun(cluster, run)
    assert "merged: nothing to do" in again.stdout
    assert len(jobs_of(run)) == 3


def test_a_requested_analysis_follows_the_merge(cluster: Cluster, tokenizer_only: Path, tmp_path: Path) -> None:
    """Also when a rerun embeds a lost shard again, with a view of the user."""
    data = write_chats(tmp_path / "chats.parquet", [chat(f"prompt {i}", f"answer {i}") for i in range(4)])
    run = submit(
        cluster, data, tokenizer_only, tmp_path, "--analyze", "--view", "swapped={response_text} {user_prompt}"
    )
    wait_ended(cluster, run)
    assert run.is_analyzed(), logs(run)
    assert len(jobs_of(run)) == 4
    seen = json.loads(embedkit("status", run.path, "--json", **cluster.environment).stdout)
    assert [(stage["stage"], stage["tasks"]) for stage in seen["stages"]][-1] == ("analyze", {"done": 1})
    assert "merged: nothing to do" in rerun(cluster, run).stdout
    vectors = run.view_matrix("swapped").read_bytes()
    for lost in (run.analysis_page, run.success, run.shard_manifest(0)):
        lost.unlink()
    assert "analyze" in rerun(cluster, run).stdout
    wait_ended(cluster, run)
    assert run.is_analyzed(), logs(run)
    assert run.view_matrix("swapped").read_bytes() == vectors
