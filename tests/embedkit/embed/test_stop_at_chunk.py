"""A shard task that is requested to stop ends at a chunk's end; the next attempt continues there."""

import shutil
import time
from pathlib import Path

import pytest

from embedkit.embed import embed_shards
from embedkit.embed.journal import durable_chunks
from embedkit.embed.stop_at_chunk import StopAtChunk, StoppedAtChunk, request_stop
from embedkit.engines.hash import HashEngine
from embedkit.run import RunFolder
from tests.conftest import snapshot


@pytest.fixture
def unfinished(hash_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run without its shard 1."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(hash_run.path, run.path)
    shutil.rmtree(run.shard(1))
    return run


def stop_in_chunk(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Request the stop while the engine embeds this chunk."""
    honest, chunks = HashEngine.embed, iter(range(1, 1000))

    def embed(self: HashEngine, token_ids):  # type: ignore[no-untyped-def]
        if len(token_ids) > 1 and next(chunks) == number:
            request_stop(folder, time.monotonic() + 60)
        return honest(self, token_ids)

    monkeypatch.setattr(HashEngine, "embed", embed)


def test_task_ends_its_chunk_and_the_next_continues(
    unfinished: RunFolder, hash_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopAtChunk(tmp_path, 1)
    stop_in_chunk(3, tmp_path, monkeypatch)
    with pytest.raises(StoppedAtChunk):
        embed_shards(unfinished, [1], stops=tmp_path)
    assert len(durable_chunks(unfinished.shard(1))) == 3
    status = stop.status()
    assert status is not None
    assert status.is_measured
    (tmp_path / "stop-at-chunk").unlink()
    embed_shards(unfinished, [1], stops=tmp_path)
    assert snapshot(unfinished) == snapshot(hash_run)
    assert unfinished.shard_manifest(1).exists()


def test_last_chunk_finishes_the_shard(unfinished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_in_chunk(13, tmp_path, monkeypatch)
    embed_shards(unfinished, [1], stops=tmp_path)
    assert unfinished.shard_manifest(1).exists()


@pytest.mark.parametrize(("left", "chunks"), [(60.0, 1), (-1.0, 0)])
def test_task_that_was_still_starting_embeds_a_chunk_if_it_fits(
    left: float, chunks: int, unfinished: RunFolder, tmp_path: Path
) -> None:
    request_stop(tmp_path, time.monotonic() + left)
    with pytest.raises(StoppedAtChunk):
        embed_shards(unfinished, [1], stops=tmp_path)
    assert len(durable_chunks(unfinished.shard(1))) == chunks
