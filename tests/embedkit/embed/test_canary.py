"""Engines that misbehave in real processes are detected and named, with a non-zero exit code.

The hash engine plays the misbehaviour, see tests/support/misbehave/: a test cannot have a bad GPU.
"""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from embedkit.check.verify import verify
from embedkit.documents.codec import read, write
from embedkit.documents.schema import Canary, EngineSettings, Plan, RunConfig, ShardManifest
from embedkit.embed.canary import canary_inputs, canary_problems
from embedkit.embed.journal import journals
from embedkit.model.tokenizer import load_tokenizer
from embedkit.prepare.plan import engine_settings
from embedkit.run import RunFolder
from tests.conftest import embedkit, needs_vllm, snapshot
from tests.support.checkout import SUPPORT, python_path


def misbehaving(kind: str, *arguments: object, **environment: str) -> Any:
    there = python_path(SUPPORT / "misbehave") | {"EMBEDKIT_TEST_ENGINE": kind} | environment
    return embedkit(*arguments, check=False, **there)


@pytest.mark.slow
def test_a_stand_in_for_a_gpu_with_noise_fails_its_task(prepared_run: RunFolder, hash_run: RunFolder) -> None:
    failed = misbehaving("noise", "embed", prepared_run.path, "--shard", 1)
    assert failed.returncode == 1
    assert "shard 1: the canary's vectors moved by 0.0" in failed.stderr
    assert "run the shard on another node" in failed.stderr
    assert list(prepared_run.shard(1).iterdir()) == []
    resume = ["run", "--resume", "--run-name", "run", "--output-dir", prepared_run.path.parent]
    failed = misbehaving("noise", *resume)
    assert failed.returncode == 1
    assert "embed-00002 failed: shard 2: the canary's vectors moved" in failed.stderr
    embedkit(*resume)
    assert snapshot(prepared_run) == snapshot(hash_run)


def test_chunks_of_a_stand_in_for_a_bad_gpu_are_not_adopted(prepared_run: RunFolder, hash_run: RunFolder) -> None:
    """The GPU went bad and the task died: the first canary was right, and there was no second."""
    failed = misbehaving("goes-bad", "embed", prepared_run.path, "--shard", 1)
    assert failed.returncode == 1
    assert "the engine failed on rows" in failed.stderr
    assert len(journals(prepared_run.shard(1))[0].chunks) == 2
    done = embedkit("embed", prepared_run.path)
    assert "have different vectors now; its chunks are embedded again" in done.stderr
    assert read(prepared_run.shard_manifest(1), ShardManifest).chunks_adopted == 0
    embedkit("merge", prepared_run.path)
    assert snapshot(prepared_run) == snapshot(hash_run)


def test_a_stand_in_for_another_model_is_named_by_merge_and_verify(
    prepared_run: RunFolder, hash_run: RunFolder
) -> None:
    assert misbehaving("other-model", "embed", prepared_run.path, "--shard", 1).returncode == 0
    embedkit("embed", prepared_run.path)
    failed = embedkit("merge", prepared_run.path, check=False)
    assert failed.returncode == 1
    assert "  shard 1: its canary is 1." in failed.stderr
    assert "  shard 0" not in failed.stderr
    assert "to make them again: " in failed.stderr
    assert not prepared_run.success.exists()
    assert [problem.shard for problem in verify(prepared_run).problems] == [1]
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", prepared_run.path.parent)
    assert snapshot(prepared_run) == snapshot(hash_run)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hang", "hang-holding"])
def test_a_stand_in_for_a_hung_engine_ends_its_task(kind: str, damaged_run: RunFolder, hash_run: RunFolder) -> None:
    """Whether or not it holds the interpreter, and what was durable is kept. Of the run, shard 0 is left to do."""
    run = damaged_run
    shutil.rmtree(run.shard(0))
    run.success.unlink()
    resume = ["run", "--resume", "--run-name", "run", "--output-dir", run.path.parent]
    began = time.monotonic()
    failed = misbehaving(kind, *resume, EMBEDKIT_WATCHDOG_SECONDS="2")
    assert failed.returncode == 1
    assert time.monotonic() - began < 100
    assert re.search(r"embed-00000 failed: no progress for \d s, while embedding ids .* \(shard 0\)", failed.stderr)
    log = (run.logs / "embed-00000.log").read_text()
    assert "tests/support/misbehave/sitecustomize.py" in log  # where it hung
    embedkit(*resume)
    assert snapshot(run) == snapshot(hash_run)


def test_manifests_hold_the_canary(hash_run: RunFolder, tokenizer_only: Path) -> None:
    settings = read(hash_run.plan, Plan).settings
    inputs = canary_inputs(load_tokenizer(tokenizer_only), settings)
    assert [len(ids) for ids in inputs][1:] == [256, 512]
    assert len(inputs[0]) < 100
    for shard in range(3):
        canary = read(hash_run.shard_manifest(shard), ShardManifest).canary
        assert canary.tokens == tuple(len(ids) for ids in inputs)
        assert np.frombuffer(canary.before, "<f4").shape == (3 * 64,)
        assert canary.before == canary.after


@pytest.mark.parametrize("limit", [1, 2, 100, 300, 5000, 32768])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_canaries_fit_any_limit(limit: int, device: Any, hash_run: RunFolder, minilm: Path) -> None:
    request = msgspec.structs.replace(read(hash_run.config, RunConfig).request, max_length=limit, device=device)
    settings: EngineSettings = engine_settings(request)
    lengths = [len(ids) for ids in canary_inputs(load_tokenizer(minilm), settings)]
    longest = {"cpu": (256, 1024), "cuda": (2048, 8192)}[device]
    assert lengths[0] == min(lengths[0], limit)
    assert lengths[1:] == [min(length, limit) for length in longest]


Change = Callable[[Canary], Canary]


def test_which_shard_disagrees(hash_run: RunFolder) -> None:
    one = read(hash_run.shard_manifest(0), ShardManifest)

    def shards(**bytes_of: bytes) -> list[ShardManifest]:
        changed = msgspec.structs.replace(one, canary=msgspec.structs.replace(one.canary, **bytes_of))
        return [msgspec.structs.replace(one if shard != 3 else changed, shard=shard) for shard in range(5)]

    before = np.frombuffer(one.canary.before, "<f4")
    assert canary_problems(shards()) == {}
    assert canary_problems(shards(before=(before * np.float32(1 + 1e-6)).tobytes())) == {}
    for other in (-before, before * np.float32(1.01), before * np.float32(np.nan), before[:-64]):
        assert list(canary_problems(shards(after=other.tobytes()))) == [3]
    assert canary_problems([one]) == {}
    assert canary_problems([]) == {}
    elsewhere = msgspec.structs.replace(one.engine, gpu="other")
    others = [msgspec.structs.replace(m, engine=elsewhere) if m.shard == 3 else m for m in shards(after=b"")]
    assert list(canary_problems(others)) == [3]  # alone on its engine, but its two canaries differ


@pytest.mark.slow
@needs_vllm
def test_two_real_vllm_tasks_have_one_canary(tiny_qwen: Path, small_chats: Path, tmp_path: Path) -> None:
    embedkit(
        *("run", "--dataset", small_chats, "--model", tiny_qwen, "--sample-size", 40, "--shards", 2),
        *("--output-dir", tmp_path, "--run-name", "run"),
    )
    run = RunFolder(tmp_path / "run")
    for shard in range(2):
        path = run.shard_manifest(shard)
        manifest = read(path, ShardManifest)
        assert len(np.unique(np.frombuffer(manifest.canary.before, "<f4"))) > 100
    swapped = np.roll(np.frombuffer(manifest.canary.after, "<f4"), 1).tobytes()
    write(path, msgspec.structs.replace(manifest, canary=msgspec.structs.replace(manifest.canary, after=swapped)))
    assert "shard 1: its canary is" in embedkit("merge", run.path, code=1).stderr
