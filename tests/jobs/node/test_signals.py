"""Signals to real processes, and requests to requeue a job, with stand-ins that print what scontrol prints."""

import math
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from jobs.node.signals import STOPPED, SignalWatcher, requeue


@pytest.mark.parametrize(
    ("message", "code", "refused"),
    [
        ("", 0, None),
        ("3_1: Job is pending execution", 1, None),  # its node was lost, and Slurm has queued it by itself
        ("Requested operation is presently disabled", 1, "Requested operation is presently disabled"),
        ("", 2, "scontrol exited 2"),
    ],
)
def test_refusal_is_returned_unless_slurm_requeued_already(
    message: str, code: int, refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho '{message}' >&2\nexit {code}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert requeue() == refused


LONG = 60.0


class Signalled:
    """A forked process with a SignalWatcher. A warning gives its work this many seconds."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=(seconds,))
        self._process.start()
        self._wait("up")

    def _run(self, seconds: float) -> None:
        def warned(received: signal.Signals) -> float:
            (self._folder / "warned").touch()
            return 1 / 0 if math.isnan(seconds) else seconds

        def stop(received: signal.Signals) -> None:
            self._write("stopped", received.name + ", time is over" * watcher.is_time_over)

        watcher = SignalWatcher(stop, warned)
        with watcher:
            (self._folder / "up").touch()
            while not (self._folder / "ended").exists():
                time.sleep(0.01)
            watcher.stop()

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)

    def _wait(self, name: str) -> None:
        while not (self._folder / name).exists():
            time.sleep(0.01)

    def send(self, *signals: signal.Signals) -> None:
        """Send signals, one after another."""
        assert self._process.pid is not None
        for number in signals:
            os.kill(self._process.pid, number)
            if number == signal.SIGUSR2:
                self._wait("warned")

    def end_work(self) -> None:
        (self._folder / "ended").touch()

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def outcome(self) -> tuple[int | None, str]:
        """The exit code, and the signal that stopped it, or that its time is over."""
        self._process.join(30)
        return self._process.exitcode, (self._folder / "stopped").read_text()


def test_warned_process_lets_its_work_end(tmp_path: Path) -> None:
    process = Signalled(tmp_path, LONG)
    process.send(signal.SIGUSR2)
    assert process.is_running
    process.end_work()
    assert process.outcome() == (STOPPED, "SIGUSR2")


@pytest.mark.parametrize(
    ("seconds", "signals", "received"),
    [
        (LONG, [signal.SIGTERM], "SIGTERM"),
        (LONG, [signal.SIGUSR2, signal.SIGTERM], "SIGTERM"),
        (LONG, [signal.SIGUSR2, signal.SIGUSR2], "SIGUSR2"),
        (0.0, [signal.SIGUSR2], "SIGUSR2"),
        (0.2, [signal.SIGUSR2], "SIGUSR2, time is over"),
        (math.nan, [signal.SIGUSR2], "SIGUSR2"),  # asking for the time fails
    ],
)
def test_work_without_time_is_dropped(
    seconds: float, signals: list[signal.Signals], received: str, tmp_path: Path
) -> None:
    process = Signalled(tmp_path, seconds)
    process.send(*signals)
    assert process.outcome() == (STOPPED, received)


def test_a_pause_does_not_use_up_the_time_of_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.node.signals.TICK_SECONDS", 0.05)
    process = Signalled(tmp_path, 0.8)
    process.send(signal.SIGUSR2, signal.SIGSTOP)
    time.sleep(1.0)
    process.send(signal.SIGCONT)
    time.sleep(0.1)
    assert process.is_running
    process.end_work()
    assert process.outcome() == (STOPPED, "SIGUSR2")
