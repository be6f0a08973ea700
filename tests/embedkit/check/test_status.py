"""How far a run is, counted by hand from its manifests, its journals and its parts."""

import msgspec
import pytest

from embedkit.check.status import ShardStatus, StatusReader
from embedkit.documents.codec import read, write
from embedkit.documents.schema import PartManifest, Plan, ShardManifest
from embedkit.run import RunFolder
from tests.embedkit.embed.test_shard_task import Task, small_plan


def test_a_finished_shard_counts_by_its_manifest(hash_run: RunFolder) -> None:
    """The engine's start is followed by the first of two canaries."""
    status, plan = StatusReader(hash_run).read(), read(hash_run.plan, Plan)
    assert (status.stage, status.shards_done, status.rows_kept) == ("done", 3, plan.rows_kept)
    assert (status.tokens_done, status.tokens) == (plan.tokens, plan.tokens)
    for found, planned in zip(status.shards, plan.shards, strict=True):
        manifest = read(hash_run.shard_manifest(found.shard), ShardManifest)
        seconds = sum(chunk.seconds for chunk in manifest.chunks)
        rows = planned.stop - planned.start
        assert (found.state, found.rows_done, found.rows, found.tokens_done) == ("done", rows, rows, planned.tokens)
        assert (found.chunks_done, found.chunks) == (len(planned.chunks) - 1, len(planned.chunks) - 1)
        assert found.embed_seconds == pytest.approx(seconds)
        assert found.tokens_per_second == pytest.approx(planned.tokens / seconds)
        assert found.predicted_seconds == planned.cost_seconds
        first_canary = manifest.seconds["canary"] / 2
        assert found.start_seconds == pytest.approx(manifest.seconds.get("start", 0.0) + first_canary)


def test_a_started_shard_counts_by_its_durable_chunks(prepared_run: RunFolder) -> None:
    """Three chunks of twelve rows are durable, and the second shard has not begun."""
    config, plan = small_plan(prepared_run)
    write(prepared_run.plan, plan)
    journal = Task(prepared_run, config, plan).stopped_after(3)
    status = StatusReader(prepared_run).read()
    first, second = status.shards
    tokens = sum(chunk.tokens for chunk in journal.chunks)
    assert (first.state, first.rows_done, first.rows, first.chunks_done, first.chunks) == ("started", 36, 120, 3, 10)
    assert (first.tokens_done, first.tokens) == (tokens, plan.shards[0].tokens)
    assert first.embed_seconds == pytest.approx(sum(chunk.seconds for chunk in journal.chunks))
    path = prepared_run.shard(0) / f"{journal.header.attempt}.journal.jsonl"
    assert first.changed == path.stat().st_mtime
    assert (second.state, second.rows_done, second.chunks_done, second.changed) == ("pending", 0, 0, None)
    assert (second.tokens_per_second, second.start_seconds) == (0.0, None)
    assert (status.stage, status.shards_done, status.tokens_done) == ("embed", 0, tokens)


def test_parts_count_before_there_is_a_plan(prepared_run: RunFolder) -> None:
    """Three parts of 9,000 rows, of which the second is not made yet."""
    plan = read(prepared_run.plan, Plan)
    prepared_run.plan.unlink()
    parts = [read(prepared_run.part_manifest(part), PartManifest) for part in range(3)]
    prepared_run.part_manifest(1).unlink()
    status = StatusReader(prepared_run).read()
    assert (status.stage, status.rows_chosen, status.rows_prepared) == ("prepare", 9000, 9000 - 4096)
    dropped = {reason: parts[0].dropped[reason] + parts[2].dropped[reason] for reason in parts[0].dropped}
    assert status.dropped == dropped
    assert sum(plan.dropped.values()) == sum(sum(part.dropped.values()) for part in parts)
    assert (status.rows_kept, status.tokens, status.shards) == (None, None, ())


def test_speed_is_tokens_per_second_of_embedding() -> None:
    shard = ShardStatus(
        shard=0,
        state="started",
        rows_done=1,
        rows=2,
        tokens_done=300,
        tokens=600,
        chunks_done=1,
        chunks=2,
        embed_seconds=1.5,
        predicted_seconds=9.0,
    )
    assert shard.tokens_per_second == 200.0
    assert msgspec.structs.replace(shard, tokens_done=0).tokens_per_second == 0.0
    assert msgspec.structs.replace(shard, embed_seconds=0.0).tokens_per_second > 1e9
