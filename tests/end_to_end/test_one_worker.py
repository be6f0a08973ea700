"""`embedkit run` with several shards per slot: one process embeds them with one engine, as separate ones would."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from embedkit.documents import ShardManifest, read
from embedkit.run import RunFolder
from tests.conftest import EMBEDKIT, ROOT, embedkit, needs_vllm
from tests.end_to_end.test_whole_run import matrix_of

SHARDS = range(3)


def request(data: Path, model: Path, engine: str, output: Path) -> list[str]:
    options = ("--dataset", data, "--model", model, "--engine", engine, "--sample-size", 200, "--shards", len(SHARDS))
    return [str(word) for word in (*options, "--num-gpus", 1, "--output-dir", output, "--run-name", "run")]


def log_of(run: RunFolder, shard: int) -> str:
    return (run.logs / f"embed-{shard:05d}.log").read_text(encoding="utf-8")


def processes_of(run: RunFolder, shard: int) -> list[str]:
    """The processes that began a shard, by its log."""
    return re.findall(r" started: process (\d+)$", log_of(run, shard), re.MULTILINE)


def vectors_of_separate_processes(run: RunFolder, folder: Path) -> np.ndarray:
    """The merged vectors if each shard of a run is embedded by a process of its own."""
    again = RunFolder(folder / "again")
    shutil.copytree(run.path, again.path)
    shutil.rmtree(again.embeddings)
    for shard in SHARDS:
        embedkit("embed", again.path, "--shard", shard)
    embedkit("merge", again.path)
    return matrix_of(again.view_matrix("combined"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=needs_vllm)])
def test_one_engine_gives_all_shards_the_same_vectors(
    engine: str, small_chats: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    embedkit("run", *request(small_chats, tiny_qwen, engine, tmp_path))
    run = RunFolder(tmp_path / "run")
    assert len({tuple(processes_of(run, shard)) for shard in SHARDS}) == 1
    assert ["INFO engine: EngineRecord(" in log_of(run, shard) for shard in SHARDS] == [True, False, False]
    for shard in SHARDS:
        lines = [line for line in log_of(run, shard).splitlines() if "is finished" in line]
        assert re.fullmatch(rf".* INFO shard {shard} is finished: [\d.]+ tokens a second", *lines)
    first, *others = [read(run.shard_manifest(shard), ShardManifest) for shard in SHARDS]
    for other in others:
        assert other.engine == first.engine
        assert other.canary == first.canary
        assert 10 * other.seconds["start"] < first.seconds["start"]  # of these, an engine starts in one alone
    assert np.array_equal(matrix_of(run.view_matrix("combined")), vectors_of_separate_processes(run, tmp_path))


@pytest.mark.slow
def test_a_worker_killed_in_its_second_shard_is_replaced(small_chats: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    command = [*EMBEDKIT, "run", *request(small_chats, tiny_qwen, "transformers", tmp_path)]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(run.shard(1).glob("*.jsonl")):
        assert started.poll() is None, started.communicate()
        time.sleep(0.002)
    (killed,) = processes_of(run, 1)
    os.kill(int(killed), signal.SIGKILL)
    assert started.wait(120) == 1
    assert started.stderr is not None
    message = started.stderr.read()
    assert "embed-00001 failed: it ended without logging an error (killed?)\n" in message
    assert "embed-00000 failed" not in message
    assert "embed-00002 failed" not in message
    assert processes_of(run, 0) == [killed]
    assert processes_of(run, 2) not in ([], [killed])
    assert [run.shard_manifest(shard).exists() for shard in SHARDS] == [True, False, True]
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path)
    assert np.array_equal(matrix_of(run.view_matrix("combined")), vectors_of_separate_processes(run, tmp_path))
