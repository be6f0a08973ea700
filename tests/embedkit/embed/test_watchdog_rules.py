"""What the watchdog's process counts and when it acts, with a stand-in clock; and limits from the environment."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from embedkit.embed import watchdog, watchdog_process
from embedkit.embed.watchdog import Watchdog, renew_limit
from embedkit.errors import UsageError


@dataclass
class World:
    """Stand-ins for the parent, the clock and the pipes. `lines` come at these seconds; `b""` closes stdin."""

    lines: dict[float, bytes]
    now: float = 0.0
    step: float | None = None
    stopped: tuple[float, float] = (0.0, 0.0)
    parent_until: float = 1e9
    ticks: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    ended: list[tuple[float, str]] = field(default_factory=list)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    def watch(world: World, grace: float = 30.0) -> World:
        waiting = dict(sorted(world.lines.items()))
        ready: list[bytes] = []

        def select(read: object, _: object, __: object, tick: float) -> tuple[list[int], list[int], list[int]]:
            assert len(world.ticks) < 5000
            world.ticks.append(tick)
            until = world.now + (tick if world.step is None else world.step)
            due = next((at for at in waiting if at <= until), None)
            world.now = until if due is None else max(due, world.now)
            if due is None:
                return [], [], []
            ready.append(waiting.pop(due))
            return [0], [], []

        monkeypatch.setattr(watchdog_process.select, "select", select)
        monkeypatch.setattr(watchdog_process.time, "monotonic", lambda: world.now)
        monkeypatch.setattr(watchdog_process.os, "read", lambda fd, size: ready.pop())
        monkeypatch.setattr(watchdog_process.os, "getppid", lambda: 7 if world.now < world.parent_until else 1)
        monkeypatch.setattr(watchdog_process.os, "write", lambda fd, data: world.requests.append(world.now))
        monkeypatch.setattr(
            watchdog_process, "is_stopped", lambda pid: world.stopped[0] <= world.now < world.stopped[1]
        )
        monkeypatch.setattr(watchdog_process, "end", lambda pid, why: world.ended.append((world.now, why)))
        watchdog_process.watch(7, grace)
        return world

    yield watch
    monkeypatch.undo()


def beat(doing: str, seconds: float) -> bytes:
    return json.dumps((doing, seconds)).encode() + b"\n"


def test_without_progress_the_end_is_requested_and_then_made(run) -> None:  # type: ignore[no-untyped-def]
    """After the limit a request, after the grace the end."""
    world = run(World({0.5: beat("embedding", 40.0)}))
    assert world.requests == [41.5]
    assert world.ended == [
        (71.5, "no progress for 71 s, while embedding: the interpreter is blocked, and this task ends")
    ]
    assert set(world.ticks) == {1.0}


def test_the_grace_is_no_longer_than_the_limit(run) -> None:  # type: ignore[no-untyped-def]
    world = run(World({0.5: beat("a", 2.0)}))
    assert world.ticks[1] == 0.5  # a quarter of the limit
    assert world.requests == [3.0]
    assert world.ended[0][0] == 5.0


def test_each_heartbeat_begins_the_limit_anew(run) -> None:  # type: ignore[no-untyped-def]
    """The last of several lines counts."""
    lines = {at + 0.5: beat(f"step {at}", 40.0) for at in range(0, 200, 30)}
    lines[200.5] = beat("old", 1.0) + beat("new", 40.0)
    lines[230.5] = b""
    world = run(World(lines))
    assert (world.requests, world.ended) == ([], [])
    assert world.now == 230.5


def test_a_heartbeat_after_the_request_takes_it_back(run) -> None:  # type: ignore[no-untyped-def]
    world = run(World({0.5: beat("a", 40.0), 60.0: beat("b", 40.0), 120.0: b""}))
    assert world.requests == [41.5, 101.0]
    assert world.ended == []


def test_nothing_ends_before_the_first_heartbeat(run) -> None:  # type: ignore[no-untyped-def]
    world = run(World({500.0: b""}))
    assert (world.requests, world.ended) == ([], [])


def test_it_ends_with_its_parent(run) -> None:  # type: ignore[no-untyped-def]
    world = run(World({0.5: beat("a", 40.0)}, parent_until=20.0))
    assert (world.requests, world.ended) == ([], [])
    assert 20.0 <= world.now <= 21.0


def test_seconds_in_which_the_parent_was_stopped_do_not_count(run) -> None:  # type: ignore[no-untyped-def]
    world = run(World({0.5: beat("a", 40.0)}, stopped=(10.0, 110.0)))
    assert world.requests == [141.5]


def test_a_pause_of_everything_is_one_long_tick(run) -> None:  # type: ignore[no-untyped-def]
    """It counts as two ticks at most, however long it was."""
    world = run(World({0.5: beat("a", 40.0)}, step=1000.0))
    assert len(world.ticks) > 20
    assert world.requests == [0.5 + 21 * 1000.0]


# Helpers of the watchdog's process


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sh", "-c", "sleep 60 & wait"])
    yield process
    for one in [*psutil.Process(process.pid).children(), process] if process.poll() is None else []:
        one.kill()
    process.wait()


def test_states_parents_and_descendants_are_those_of_proc(child: subprocess.Popen[bytes]) -> None:
    while not psutil.Process(child.pid).children():
        time.sleep(0.01)
    (sleep,) = psutil.Process(child.pid).children()
    assert watchdog_process.descendants(child.pid) == [sleep.pid]
    assert {child.pid, sleep.pid} <= set(watchdog_process.descendants(os.getpid()))
    assert watchdog_process.state_and_parent(sleep.pid)[1] == child.pid
    assert watchdog_process.state_and_parent(2**22 + 1) == ("", 0)
    assert not watchdog_process.is_stopped(sleep.pid)
    sleep.send_signal(signal.SIGSTOP)
    while not watchdog_process.is_stopped(sleep.pid):
        time.sleep(0.01)
    assert not watchdog_process.is_stopped(2**22 + 1)


def test_a_blocked_process_is_killed_with_its_descendants(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It gets a signal to write its stacks first; this process is spared."""
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(watchdog_process.os, "kill", lambda pid, number: steps.append((pid, number)))
    monkeypatch.setattr(watchdog_process.time, "sleep", lambda seconds: steps.append((0, 0)))
    monkeypatch.setattr(watchdog_process, "descendants", lambda pid: [8, os.getpid(), 9])
    watchdog_process.end(7, "no progress")
    kill = signal.SIGKILL
    assert steps == [(7, signal.SIGUSR1), (0, 0), (8, kill), (9, kill), (7, kill)]
    assert (
        " ERROR no progress; what is durable is kept. If this happens again, try another node\n"
        in capfd.readouterr().err
    )

    def gone(pid: int, number: int) -> None:
        if pid == 8:
            raise ProcessLookupError
        steps.append((pid, number))

    monkeypatch.setattr(watchdog_process.os, "kill", gone)
    watchdog_process.end(7, "no progress")
    assert steps[-2:] == [(9, kill), (7, kill)]


# Limits


@pytest.mark.parametrize(("text", "limit"), [(None, None), ("0", 0.0), ("2.5", 2.5), ("1000000", 1e6)])
def test_a_limit_may_be_set(text: str | None, limit: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMBEDKIT_WATCHDOG_SECONDS", raising=False)
    if text is not None:
        monkeypatch.setenv("EMBEDKIT_WATCHDOG_SECONDS", text)
    assert watchdog._override() == limit


@pytest.mark.parametrize("text", ["", "soon", "-1", "inf", "1e99", "nan"])
def test_a_limit_that_is_no_number_of_seconds_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDKIT_WATCHDOG_SECONDS", text)
    with pytest.raises(UsageError) as error:
        Watchdog()
    assert str(error.value) == (f"EMBEDKIT_WATCHDOG_SECONDS={text}: give a number of seconds; 0 turns the watchdog off")


class Pipe:
    """A stand-in for the child's stdin."""

    def fileno(self) -> int:
        return 3


@pytest.mark.parametrize(("override", "seconds"), [(None, 600.0), ("7", 7.0)])
def test_a_heartbeat_tells_the_step_and_its_limit(
    override: str | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal repeats it. Without a child nothing is sent; a child that was killed is no error."""
    monkeypatch.delenv("EMBEDKIT_WATCHDOG_SECONDS", raising=False)
    if override is not None:
        monkeypatch.setenv("EMBEDKIT_WATCHDOG_SECONDS", override)
    sent: list[object] = []
    monkeypatch.setattr(watchdog.os, "write", lambda fd, data: sent.append(json.loads(data)))
    dog = Watchdog()
    dog.heartbeat("nothing", 1.0)
    renew_limit()
    assert sent == []
    dog._child = type("Child", (), {"stdin": Pipe()})()
    dog.heartbeat("embedding", 600.0)
    monkeypatch.setattr(watchdog, "_current", dog)
    renew_limit()
    assert sent == [["embedding", seconds]] * 2

    def broken(fd: int, data: bytes) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(watchdog.os, "write", broken)
    renew_limit()


def test_a_limit_of_zero_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDKIT_WATCHDOG_SECONDS", "0")
    with Watchdog() as dog:
        assert dog._child is None
        assert watchdog._current is None
        dog.heartbeat("embedding", 1.0)


def test_a_watchdog_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals are let through again, and nothing is left of it."""
    monkeypatch.delenv("EMBEDKIT_WATCHDOG_SECONDS", raising=False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with Watchdog() as dog:
        child = dog._child
        assert child is not None
        assert watchdog._current is dog
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
        dog.heartbeat("embedding", 60.0)
        assert child.poll() is None
    assert watchdog._current is None
    assert child.returncode == 0
    assert not dog._thread.is_alive()


def test_a_task_without_progress_writes_its_stacks_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With all its descendants, in this order."""
    monkeypatch.delenv("EMBEDKIT_WATCHDOG_SECONDS", raising=False)
    steps: list[object] = []
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback", lambda file: steps.append(("stacks", file)))
    monkeypatch.setattr(watchdog, "kill_descendants", lambda: steps.append("descendants"))
    monkeypatch.setattr(watchdog.os, "_exit", lambda code: steps.append(("exit", code)))
    dog = Watchdog()
    dog._doing, dog._seconds = "embedding", 40.0
    dog._end()
    assert steps == [("stacks", 2), "descendants", ("exit", 1)]
    assert caplog.messages[0].startswith(
        "no progress for 40 s, while embedding: this task ends; what is durable is kept"
    )
