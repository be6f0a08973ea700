"""The files by which a task is stopped at the end of a chunk, with a stand-in clock."""

from pathlib import Path

import pytest

from embedkit.embed import stop_at_chunk
from embedkit.embed.stop_at_chunk import ChunkStatus, StopAtChunk, request_stop


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(stop_at_chunk.time, "monotonic", lambda: now[0])
    return now


def test_a_task_reports_what_it_does(tmp_path: Path, clock: list[float]) -> None:
    stop = StopAtChunk(tmp_path, 7)
    assert stop.status() is None
    stop.starting(30.0)
    assert stop.status() == ChunkStatus(100.0, None, 30.0, is_measured=False)
    clock[0] = 105.0
    assert stop.may_begin(20.0, is_measured=False)
    assert stop.status() == ChunkStatus(105.0, 105.0, 20.0, is_measured=False)
    clock[0] = 125.0
    assert stop.may_begin(19.0, is_measured=True)
    assert stop.status() == ChunkStatus(125.0, 105.0, 19.0, is_measured=True)
    assert StopAtChunk(tmp_path, 8).status() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chunk-00007"]
    (tmp_path / "chunk-00007").write_bytes(b"{")
    assert stop.status() is None


def test_the_seconds_left_are_those_of_the_chunk(clock: list[float]) -> None:
    status = ChunkStatus(90.0, 80.0, 25.0, is_measured=True)
    assert status.seconds_left() == 15.0
    clock[0] = 200.0
    assert status.seconds_left() == 0.0
    assert ChunkStatus(90.0, None, 25.0, is_measured=False).seconds_left() is None


@pytest.mark.parametrize(("seconds", "begins"), [(19.5, True), (20.0, True), (20.5, False)])
def test_a_first_chunk_begins_after_a_request_if_it_fits(
    seconds: float, begins: bool, tmp_path: Path, clock: list[float]
) -> None:
    """No other one does."""
    stop = StopAtChunk(tmp_path, 0)
    stop.starting(1.0)
    before = stop.status()
    request_stop(tmp_path, 120.0)
    assert (tmp_path / "stop-at-chunk").read_text(encoding="utf-8") == "120.0"
    assert stop.may_begin(seconds, is_measured=False) == begins
    assert (stop.status() == before) == (not begins)
    if begins:
        assert not stop.may_begin(0.1, is_measured=True)


def test_a_chunk_that_would_fit_does_not_begin_after_another(tmp_path: Path, clock: list[float]) -> None:
    stop = StopAtChunk(tmp_path, 0)
    assert stop.may_begin(1.0, is_measured=False)
    request_stop(tmp_path, 1e9)
    assert not stop.may_begin(1.0, is_measured=True)


def test_a_request_that_cannot_be_read_or_written_is_none(tmp_path: Path, clock: list[float]) -> None:
    """The node's disk is full, or the folder is gone."""
    stop = StopAtChunk(tmp_path / "gone", 0)
    request_stop(tmp_path / "gone", 1.0)
    stop.starting(1.0)
    assert stop.may_begin(1.0, is_measured=False)
    (tmp_path / "stop-at-chunk").write_text("soon", encoding="utf-8")
    stop = StopAtChunk(tmp_path, 0)
    assert stop.may_begin(1.0, is_measured=False)
    assert stop.may_begin(1.0, is_measured=False)
