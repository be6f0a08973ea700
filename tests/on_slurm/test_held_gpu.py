"""A GPU that another process holds, on a real cluster. GPU, process and nvidia-smi are stand-ins."""

import os
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from jobs.records.attempts import Attempts
from tests.conftest import embedkit, snapshot
from tests.support.checkout import python_path
from tests.support.slurm.chains import logs, rerun, submit, wait_ended
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

HELD = """
import os, pathlib
from embedkit.engines.hash import HashEngine
honest = HashEngine.__init__
node, held = os.environ.get("SLURMD_NODENAME", ""), pathlib.Path({folder!r}, "held")
def start(self, settings):
    if os.environ.get("SLURM_ARRAY_TASK_ID") == "1":
        if not held.exists():
            held.write_text(node)
        if held.read_text() == node:
            raise ValueError("Free memory on device cuda:0 (13.77/139.8 GiB) on startup is less than desired GPU "
                             "memory utilization (0.1, 13.98 GiB). Decrease GPU memory utilization")
    honest(self, settings)
HashEngine.__init__ = start
"""
NVIDIA_SMI = """\
case $1 in
--query-gpu*) for i in 0 1; do echo "$i, GPU-$i, NVIDIA H200, 143771, 14100"; done;;
--query-compute*) echo "GPU-0, 4194305, python, 128000"; echo "GPU-1, 4194305, python, 128000";;
esac
"""


def test_rerun_stays_away_from_a_stand_in_gpu_that_is_held(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    """One task at a time, so the node would be free for each waiting task."""
    folder = tmp_path / "held"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HELD.format(folder=str(folder)))
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{NVIDIA_SMI}")
    (folder / "nvidia-smi").chmod(0o755)
    environment = python_path(folder) | {"PATH": f"{folder}:{os.environ['PATH']}"}
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--num-gpus", 1, **environment)
    wait_ended(cluster, run)
    (attempt,) = Attempts(run, "embed", 1).attempts()
    assert attempt.error_code == "gpu-held", logs(run)
    said = (
        f"(GPU-{{0,1}}, NVIDIA H200) of node {attempt.node} has 13.8 of 140.4 GiB free: process 4194305 (python) holds"
    )
    assert any(said.replace("{0,1}", gpu) in attempt.why for gpu in "01"), attempt.why
    assert "process 4194305 (python) holds" in embedkit("status", run.path, code=1, **cluster.environment).stdout
    assert f"the waiting tasks of embed will not start on {attempt.node}" in logs(run, ["embed-00001.log"])
    assert Attempts(run, "embed", 2).attempts()[-1].node != attempt.node
    said = rerun(cluster, run, **environment).stdout
    assert f"without nodes {attempt.node}, where another process held a GPU" in said
    wait_ended(cluster, run)
    assert Attempts(run, "embed", 1).attempts()[-1].node != attempt.node
    assert snapshot(run) == snapshot(hash_run)
