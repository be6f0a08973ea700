"""Whether a worker begins a further shard: by the task's time, a request to stop, and how long shards take."""

import time
from pathlib import Path

import pytest

from embedkit.embed.stop_at_chunk import StopAtChunk, request_stop
from embedkit.run import RunFolder
from jobs.node import time_left as module
from jobs.node.next_shard import NextShard, next_shard
from jobs.node.time_left import EARLY_SECONDS, LEAST_SECONDS, last_moment
from jobs.slurm.job_times import JobTimes


def after_a_shard(folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Shard 0 has begun its first chunk so many seconds ago, and has just ended."""
    now = time.monotonic()
    monkeypatch.setattr("embedkit.embed.stop_at_chunk.time.monotonic", lambda: now - seconds)
    assert StopAtChunk(folder, 0).may_begin(1.0, is_measured=True)
    monkeypatch.setattr("embedkit.embed.stop_at_chunk.time.monotonic", lambda: now)


@pytest.mark.parametrize(("took", "left", "expected"), [(100, 250, True), (100, 150, False), (20, 50, True)])
def test_a_shard_takes_as_many_times_its_prediction_as_the_last(
    took: float, left: float, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shard 1 is predicted to take twice as long as shard 0."""
    after_a_shard(tmp_path, monkeypatch, took)
    following = NextShard(tmp_path, time.monotonic() + left, {0: 40.0, 1: 80.0})
    assert following.may_begin(1, 0) == expected


def test_a_new_worker_relies_on_the_plan(tmp_path: Path) -> None:
    following = NextShard(tmp_path, time.monotonic() + 60, {0: 40.0, 1: 80.0})
    assert following.may_begin(0, None)
    assert not following.may_begin(1, None)
    assert not following.may_begin(1, 0)  # shard 0 was finished already: nothing was measured


def test_without_a_time_limit_every_shard_begins(tmp_path: Path) -> None:
    assert NextShard(tmp_path, None, {1: 1e9}).may_begin(1, 0)


def test_after_a_request_to_stop_no_shard_begins(tmp_path: Path) -> None:
    request_stop(tmp_path, time.monotonic() + 60)
    assert not NextShard(tmp_path, None, {1: 1.0}).may_begin(1, 0)


def test_the_last_moment_is_before_the_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = time.time()
    monkeypatch.setattr(module, "job_times", lambda _: JobTimes(now - 10, now + 3590))
    monkeypatch.setattr(module, "seconds_since_start", lambda: 10.0)
    moment = last_moment(RunFolder(tmp_path))
    assert moment is not None
    left = 3590 - LEAST_SECONDS - EARLY_SECONDS
    assert moment - time.monotonic() == pytest.approx(left, abs=2)
    monkeypatch.setattr(module, "job_times", lambda _: JobTimes(now - 10, None))
    assert last_moment(RunFolder(tmp_path)) is None


def test_predictions_are_those_of_what_a_shard_lacks(
    hash_run: RunFolder, prepared_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.node.next_shard.last_moment", lambda _: None)
    assert next_shard(hash_run, [0, 1], tmp_path)._predicted == {0: 0.0, 1: 0.0}  # all chunks are durable
    assert all(seconds > 0 for seconds in next_shard(prepared_run, [0, 1], tmp_path)._predicted.values())
