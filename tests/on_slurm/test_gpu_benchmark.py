"""The cluster part of `benchmarks.gpu`, on a real Slurm with the hash engine, since tests run without a GPU."""

import os
from pathlib import Path

import pytest

from benchmarks.gpu import cluster as trial_module
from benchmarks.gpu import page
from benchmarks.gpu.cluster import Trial, try_both, write_profile
from tests.support.slurm.chains import faults
from tests.support.slurm.cluster import folder_of, missing_programs, start
from tests.support.slurm.settings import Hardware

pytestmark = pytest.mark.slow


def test_both_runs_of_the_cluster_benchmark_with_a_fake_gpu(
    small_chats: Path, tokenizer_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Undisturbed, then with a kill, a freeze and a requeue; the figures go into the page."""
    if missing_programs(accounting=False):
        pytest.skip("Slurm is not complete here; `make slurm-up` says how to install it")
    monkeypatch.setattr(trial_module, "FREEZE_SECONDS", 3.0)
    monkeypatch.setattr(trial_module, "SETTLED_SECONDS", 1.0)
    request = (
        "--dataset",
        small_chats,
        "--model",
        tokenizer_only,
        "--engine",
        "hash",
        "--device",
        "cpu",
        "--preflight",
    )
    more = ("--max-length", 512, "--full", "--shards", 4, "--overwrite")
    hardware = Hardware(cpus=4, memory=8000, gpus=("/dev/null", "/dev/null"))
    cluster = start(folder_of(os.getpid(), "benchmark"), accounting=False, nodes=("gpu1",), hardware=hardware)
    try:
        write_profile(tmp_path, cpus=1, memory=2000)
        trial = Trial(cluster, tmp_path, (*request, *more), 2, faults(tmp_path / "faults", 0.5))
        found = try_both(trial)
    finally:
        cluster.stop()
    assert found["metadata_equal"]
    assert found["least_cosine"] > 0.999999
    assert found["rows_equal_to_the_bit"] == found["rows"] > 8000
    assert 1 in found["unfinished"], "the killed shard"
    assert found["resubmitted"] == found["unfinished"]
    assert found["merge_named"]
    assert found["plain"]["shards"][1]["attempts"] == 1
    assert found["disturbed"]["shards"][1]["attempts"] == 2
    assert found["disturbed"]["shards"][3]["attempts"] == 2, "the requeued shard"
    results = {"cluster-2": {"day": "today", "gpus": 2, "slurm": "slurm 22.05", "verify_seconds": 1.0, **found}}
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(page, "PAGE", tmp_path / "gpu.md")
    page.write_results(results)
    page.write_page()
    text = (tmp_path / "gpu.md").read_text()
    assert "## A whole run through Slurm on 2 GPUs" in text
    assert "| attempts at shards | 4 | 6 |" in text
