"""Progress of a run from its files: bars on a terminal, a line now and then elsewhere."""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from embedkit.check.status import Status, StatusReader, share_done
from embedkit.duration import duration
from embedkit.errors import EmbedkitError
from embedkit.log_progress import LINE_SECONDS
from embedkit.progress_clock import ProgressClock
from embedkit.run import RunFolder
from jobs.slurm import QUERY_INTERVAL_SECONDS

TICK_SECONDS = 0.5
STAGES = ("prepare", "embed")


class Display:
    """Progress of prepare and embed. It changes only when `update` is called.

    stages: those that are shown: a stage that nobody works on must not seem to start.
    """

    def __init__(self, run: RunFolder, console: Console, stages: Collection[str] = STAGES) -> None:
        self._reader = StatusReader(run)
        self._console = console
        self._lines = LogLines(console)
        self._progress = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[done]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._bars = {
            stage: self._progress.add_task(stage, total=None, done="", rate="", left="", visible=False)
            for stage in stages
        }
        self._began: dict[str, tuple[float, int]] = {}
        self._clocks: dict[str, ProgressClock] = {}

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(EmbedkitError, OSError):  # what the work could not read, either
            self.update()
        self._progress.stop()

    def update(self) -> Status:
        """Read the status of the run, show it and return it."""
        status = self._reader.read()
        self._show("prepare", status.rows_prepared, status.rows_chosen, "rows", None)
        if status.tokens is not None:
            shards = f"{status.shards_done}/{len(status.shards)} shards, {_rows_done(status):,} rows"
            if not any(shard.state != "pending" for shard in status.shards):
                shards = "starting the engine"
            self._show("embed", status.tokens_done, status.tokens, "tokens", _work(status), shards)
        return status

    def _show(
        self, stage: str, done: int, total: int | None, unit: str, work: tuple[float, float] | None, detail: str = ""
    ) -> None:
        """Show a stage. work: what is done and all of it, in units that take equally long; None for no time left."""
        if total is None or stage not in self._bars:
            return
        now = time.monotonic()
        left = "" if work is None or done >= total else self._left(stage, now, *work)
        began, done_then = self._began.setdefault(stage, (now, done))
        rate = f"{(done - done_then) / (now - began):,.0f} {unit}/s" if done > done_then else ""
        text = detail or f"{done:,}/{total:,} {unit}"
        if self._console.is_terminal:
            self._progress.update(
                self._bars[stage],
                completed=done,
                total=total,
                visible=True,
                done=text,
                rate=rate if done < total else "",
                left=left,
            )
        else:
            self._lines.show(stage, done, total, "  ".join(part for part in (text, rate, left) if part))

    def _left(self, stage: str, now: float, done: float, total: float) -> str:
        """The time left of a stage; nothing before it is known, and when it is over."""
        clock = self._clocks.setdefault(stage, ProgressClock(total, done))
        clock.report(now, done)
        seconds = clock.seconds_left(now)
        return f"{duration(seconds)} left" if seconds else ""


class LogLines:
    """Progress as lines of text: one every half minute, and one when a stage is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, float] = {}

    def show(self, stage: str, done: int, total: int, text: str) -> None:
        """Print a line, unless one was printed less than half a minute ago."""
        last = self._last.get(stage, -LINE_SECONDS)
        if last == float("inf") or (done < total and time.monotonic() - last < LINE_SECONDS):
            return
        self._last[stage] = float("inf") if done >= total else time.monotonic()
        self._console.print(f"{stage:<8} {100 * done // max(total, 1):>3} %  {text}", highlight=False)


@contextmanager
def watching(run: RunFolder, console: Console, stages: Collection[str] = STAGES) -> Iterator[None]:
    """Show progress of some stages from a thread while this process works on the run."""
    stop = threading.Event()
    with Display(run, console, stages) as display:

        def watch() -> None:
            while not stop.wait(TICK_SECONDS):
                with suppress(EmbedkitError, OSError):  # the work meets the same error, and reports it
                    display.update()

        thread = threading.Thread(target=watch, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def follow(run: RunFolder, console: Console, is_alive: Callable[[], bool]) -> None:
    """Show progress until the run is done or `is_alive` reports that nothing works on it any more."""
    with Display(run, console) as display:
        while display.update().stage != "done" and is_alive():
            time.sleep(QUERY_INTERVAL_SECONDS)


def _work(status: Status) -> tuple[float, float]:
    """What is embedded, and all of it, in seconds of the plan: a token of a long row takes longer."""
    predicted = [shard.predicted_seconds for shard in status.shards]
    done = sum(seconds * share_done(shard) for seconds, shard in zip(predicted, status.shards, strict=True))
    return done, sum(predicted)


def _rows_done(status: Status) -> int:
    return sum(shard.rows_done for shard in status.shards)
