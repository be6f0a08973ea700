"""Items that workers share: one process per slot, a log per item, and a new worker for one that fails or dies."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

from embedkit.embed import Watchdog
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.local.queue import LocalQueue, make_slots

Item = tuple[str, Path]
"""What a worker of a test does, and a file that says that it did it."""


def do_items(items: Iterable[Item]) -> None:
    """The work of a worker for tests. At its end it fails if it had an item `fail-at-end`."""
    fails = False
    with Watchdog() as watchdog:
        for kind, path in items:
            watchdog.restart()
            watchdog.heartbeat(f"working on {path.name}", 0.5 if kind == "hang" else 60)
            print(f"this is {path.name}", flush=True)
            if kind == "fail":
                raise EmbedkitError("the moon is full")
            if kind == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "hang":
                re.match(r"(a+)+$", "a" * 60 + "b")  # holds the interpreter
            if kind == "orphan":
                path.with_suffix(".begun").touch()
                wait_until(partial(is_closed, RunFolder(path.parent)))
            if kind == "meet":
                wait_until((path.parent / "item-1").exists)
            path.write_text(str(os.getpid()), encoding="utf-8")
            fails |= kind == "fail-at-end"
        watchdog.heartbeat("ending", 60)
    if fails:
        raise EmbedkitError("the engine does not end")


def is_closed(run: RunFolder) -> bool:
    """Whether the queue knows that its first worker has ended."""
    return any((run.logs / "submitit").glob("*/tickets/closed-0"))


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.01)


def begin_and_wait(items: Iterable[Item]) -> None:
    """The work of a worker that never ends its first item."""
    for _, path in items:
        path.touch()
        time.sleep(3600)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.logs.mkdir(parents=True)
    return folder


def share(
    run: RunFolder, *kinds: str, slots: int = 1, on_tick: Callable[[LocalQueue], object] = lambda queue: None
) -> tuple[dict[str, str], dict[str, str | None], list[str]]:
    """Share items of these kinds. Returns the errors, what `on_end` got, and who did each item ("" for nobody)."""
    queue = LocalQueue(run, make_slots(slots, []))
    done = [run.path / f"item-{i}" for i in range(len(kinds))]
    ends: dict[str, str | None] = {}
    items = {path.name: (kind, path) for kind, path in zip(kinds, done, strict=True)}
    failures = queue.share(do_items, items, lambda: on_tick(queue), ends.__setitem__)
    assert {name: why for name, why in ends.items() if why is not None} == failures
    assert sorted(ends) == sorted(items)
    for name in items:
        text = (run.logs / f"{name}.log").read_text()
        assert re.findall(r"item-\d", "\n".join(line for line in text.splitlines() if "this is" in line)) == [name]
    return failures, ends, [path.read_text() if path.exists() else "" for path in done]


def process_of(run: RunFolder, item: int) -> str:
    """The process that began an item, by its log."""
    (pid,) = re.findall(r"started: process (\d+)", (run.logs / f"item-{item}.log").read_text())
    return str(pid)


def test_one_worker_of_a_slot_does_all_items(run: RunFolder) -> None:
    failures, _, pids = share(run, "ok", "ok", "ok")
    assert failures == {}
    assert len(set(pids)) == 1
    assert [process_of(run, item) for item in range(3)] == pids
    assert not list((run.logs / "submitit").iterdir())


def is_before(item: str, following: Item, ended: Item | None) -> bool:
    """Whether an item comes before the one with this name."""
    return following[1].name < item


@pytest.mark.parametrize("kinds", [("ok", "ok", "ok", "ok"), ("ok", "die", "ok", "ok")])
def test_items_that_may_not_be_taken_are_left(kinds: Sequence[str], run: RunFolder) -> None:
    """A worker asks before each further item, and the queue before it starts another worker."""
    done = [run.path / f"item-{i}" for i in range(4)]
    ends: dict[str, str | None] = {}
    items = {path.name: (kind, path) for kind, path in zip(kinds, done, strict=True)}
    queue = LocalQueue(run, make_slots(1, []))
    queue.share(do_items, items, lambda: None, ends.__setitem__, partial(is_before, "item-2"))
    assert sorted(ends) == ["item-0", "item-1"]
    assert [path.exists() for path in done] == [True, kinds[1] == "ok", False, False]


def test_workers_of_two_slots_share_the_items(run: RunFolder) -> None:
    failures, _, pids = share(run, "meet", "ok", "ok", "ok", slots=2)
    assert failures == {}
    assert pids[0] != pids[1]
    assert set(pids) == {pids[0], pids[1]}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        pytest.param("fail", "the moon is full\nlog: ", marks=pytest.mark.slow),
        ("die", "it ended without logging an error (killed?)\n"),
    ],
)
def test_a_failed_item_ends_its_worker_and_no_other_item(kind: str, error: str, run: RunFolder) -> None:
    failures, _, pids = share(run, "ok", kind, "ok", "ok")
    assert list(failures) == ["item-1"]
    assert failures["item-1"].startswith(error)
    assert pids[1] == ""
    assert pids[0] == process_of(run, 1)
    assert pids[2] == pids[3] != pids[0]
    assert " ERROR " not in (run.logs / "item-0.log").read_text()


@pytest.mark.slow
def test_the_watchdog_ends_a_later_item_in_its_log(run: RunFolder) -> None:
    """Its process, which alone can write while the interpreter is held, writes to the log of that item."""
    failures, _, pids = share(run, "ok", "hang", "ok")
    assert list(failures) == ["item-1"]
    assert failures["item-1"].startswith("no progress for ")
    assert "while working on item-1: the interpreter is blocked" in failures["item-1"]
    assert pids[2] not in ("", pids[0])
    assert "no progress" not in (run.logs / "item-0.log").read_text()


def test_a_worker_that_fails_at_its_end_fails_its_last_item(run: RunFolder) -> None:
    failures, ends, pids = share(run, "fail-at-end", "ok")
    assert list(failures) == ["item-1"]
    assert failures["item-1"].startswith("the engine does not end\nlog: ")
    assert ends["item-0"] is None
    assert pids[0] == pids[1] != ""


def test_a_worker_without_its_submitit_process_takes_no_item(run: RunFolder) -> None:
    killed: list[object] = []

    def kill_submitit(queue: LocalQueue) -> None:
        if (run.path / "item-0.begun").exists() and not killed:
            process = queue._running[0][0]._process  # type: ignore[attr-defined]
            process.kill()
            assert process.wait() == -signal.SIGKILL
            killed.append(process)

    failures, _, pids = share(run, "orphan", "ok", on_tick=kill_submitit)
    assert list(failures) == ["item-0"]
    assert pids[1] not in ("", process_of(run, 0))


@pytest.mark.slow
def test_an_interrupt_leaves_no_worker(run: RunFolder) -> None:
    def interrupt() -> None:
        if (run.path / "item-0").exists():
            raise KeyboardInterrupt

    items = {f"item-{i}": ("ok", run.path / f"item-{i}") for i in range(2)}
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        LocalQueue(run, make_slots(1, [])).share(begin_and_wait, items, interrupt)
    assert not psutil.pid_exists(int(process_of(run, 0)))
    assert not (run.path / "item-1").exists()
    assert not list((run.logs / "submitit").glob("*/tickets"))
