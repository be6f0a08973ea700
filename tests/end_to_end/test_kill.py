"""kill -9 at every durable step of every stage: the next start continues, and the result is the same.

Real processes are killed: tests/support/crash/sitecustomize.py does it at the K-th fsync, rename or link.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedkit.check.verify import verify
from embedkit.documents.codec import read
from embedkit.documents.schema import ShardManifest
from embedkit.embed.journal import journals
from embedkit.run import RunFolder
from tests.conftest import ROOT, embedkit, hash_request, needs_vllm, snapshot
from tests.end_to_end.test_whole_run import matrix_of

CRASH = str(ROOT / "tests" / "support" / "crash")


def killed(*arguments: object, at: int) -> bool:
    """Run a command that is killed at its K-th durable step. Returns whether it was."""
    done = embedkit(*arguments, check=False, PYTHONPATH=CRASH, EMBEDKIT_TEST_KILL_AT=str(at))
    # 1: a worker process died and prepare reported it.
    assert done.returncode in (0, 1, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def growing() -> Iterator[int]:
    """1, 2, 3, 4, 5, 7, 9, 12, ...: every early step, and ever fewer of the later ones."""
    at = 1
    while at < 500:
        yield at
        at += 1 + at // 4
    raise AssertionError("it was killed every time")


@pytest.mark.slow
def test_kills_in_prepare(small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path) -> None:
    request = hash_request(small_chats, tokenizer_only, tmp_path)
    run = RunFolder(tmp_path / "run")
    deaths = 0
    for at in growing():
        if not killed("prepare", *request, "--resume", "--workers", 1, at=at):
            break
        deaths += 1
        assert verify(run).ok or not run.config.exists()
    assert deaths >= 5
    embedkit("embed", run.path)
    embedkit("merge", run.path)
    assert snapshot(run) == snapshot(hash_run)
    assert not list(run.path.rglob(".*"))


def test_kills_in_embed(prepared_run: RunFolder, hash_run: RunFolder) -> None:
    """With fault 5 of the replaced scripts: a failure at 99 % of a shard cost everything."""
    deaths = 0
    for at in growing():
        if not killed("embed", prepared_run.path, "--shard", 1, at=at):
            break
        deaths += 1
        assert verify(prepared_run).ok
        durable = {chunk.start for journal in journals(prepared_run.shard(1)) for chunk in journal.chunks}
        assert len(durable) >= 1 or at < 6
    assert deaths >= 5
    embedkit("embed", prepared_run.path)
    manifest = read(prepared_run.shard_manifest(1), ShardManifest)
    assert manifest.chunks_adopted > 0
    assert {path.name for path in prepared_run.shard(1).iterdir()} == {
        *("manifest.json", manifest.matrices["combined"].file.name, f"{manifest.attempt}.journal.jsonl")
    }
    (prepared_run.path / ".embed-1.lease.a.new.tmp").write_bytes(b"{")  # of one that was killed then
    embedkit("merge", prepared_run.path)
    assert snapshot(prepared_run) == snapshot(hash_run)
    assert not list(prepared_run.path.glob(".*"))


@pytest.mark.slow
def test_kills_in_merge(prepared_run: RunFolder, hash_run: RunFolder) -> None:
    embedkit("embed", prepared_run.path)
    deaths = 0
    for at in growing():
        if not killed("merge", prepared_run.path, at=at):
            break
        deaths += 1
        assert not prepared_run.success.exists() or verify(prepared_run).ok
    assert deaths >= 5
    assert snapshot(prepared_run) == snapshot(hash_run)
    assert verify(prepared_run).ok
    assert not list(prepared_run.embeddings.rglob("*.tmp"))


@pytest.mark.slow
@needs_vllm
def test_kills_in_embed_with_vllm(tiny_qwen: Path, small_chats: Path, tmp_path: Path) -> None:
    request = [
        *("--dataset", small_chats, "--model", tiny_qwen, "--sample-size", 150, "--output-dir", tmp_path),
        *("--shards", 1, "--run-name"),
    ]
    for name in ("undisturbed", "killed"):
        embedkit("prepare", *request, name)
    undisturbed, disturbed = RunFolder(tmp_path / "undisturbed"), RunFolder(tmp_path / "killed")
    embedkit("embed", undisturbed.path)
    assert killed("embed", disturbed.path, at=10)
    embedkit("embed", disturbed.path)
    assert read(disturbed.shard_manifest(0), ShardManifest).chunks_adopted >= 1
    for run in (undisturbed, disturbed):
        embedkit("merge", run.path)
    assert disturbed.metadata.read_bytes() == undisturbed.metadata.read_bytes()
    vectors, expected = (matrix_of(run.view_matrix("combined")) for run in (disturbed, undisturbed))
    assert np.abs(vectors - expected).max() <= 1e-6
