"""The command `logs`: the last lines of the logs of a run's jobs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.cli.clusters import use_cluster_of_run
from jobs.cli.options import gathered_into, run_argument
from jobs.monitor import BLOCKED, Overview, StatusCollector, follow, newest_attempt, selected
from jobs.output import print_lines
from jobs.profiles import STAGES
from jobs.records import log_name
from jobs.slurm import QUERY_INTERVAL_SECONDS


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """Which logs are shown, and how much of each. Empty `shards` or `stages`: all."""

    failed: bool
    shards: tuple[int, ...]
    stages: tuple[str, ...]
    lines: int
    follow: bool

    @property
    def names(self) -> list[str]:
        """Names of the logs of `shards`."""
        return [log_name("embed", shard) for shard in self.shards]


@click.command()
@run_argument
@click.option("--failed", is_flag=True, help="Only logs of failed tasks, each from its newest attempt on.")
@click.option("--shard", "shards", type=click.IntRange(0), multiple=True, help="Only this shard; repeatable.")
@click.option(
    "--stage",
    "stages",
    type=click.Choice(STAGES),
    multiple=True,
    help="Only this stage; repeatable.",
)
@click.option(
    "--lines", type=click.IntRange(0), default=10, show_default=True, help="Number of last lines of each log."
)
@click.option("--follow", is_flag=True, help="Print new lines until nothing works on the run. Ctrl-C ends it.")
@gathered_into(LogOptions)
def logs(folder: RunFolder, options: LogOptions) -> None:
    """Show the last lines of a run's logs.

    The complete logs are in the run's folder logs/.
    """
    use_cluster_of_run(folder)
    collector = StatusCollector(folder)
    if options.failed:
        _print_failed(folder, collector.collect(), options)
        return

    def paths() -> list[Path]:
        return selected(folder, options.names, options.stages)

    if not paths() and not options.follow:
        raise EmbedkitError(f"{folder.logs}: no such log yet; `{folder.command('status')}` shows what there is")
    is_over = _nothing_alive(collector) if options.follow else lambda: True
    _print_logs(follow(paths, options.lines, is_over), prefixed=options.follow)


def _print_failed(folder: RunFolder, overview: Overview, options: LogOptions) -> None:
    """Print the end of the newest attempt of each failed task."""
    names = _failed(overview, options)
    for name in names:
        path = folder.logs / f"{name}.log"
        attempt = newest_attempt(path)
        print_lines(f"==> {path} <==", "\n".join(attempt[max(len(attempt) - options.lines, 0) :]))
    if not names:
        print_lines("nothing failed")


def _failed(overview: Overview, options: LogOptions) -> list[str]:
    """Names of the logs of failed tasks, of the shards and stages in the options."""
    tasks: list[tuple[str, int | None, str]] = [
        ("embed", shard.shard, shard.log) for shard in overview.shards if shard.state in ("failed", "cancelled")
    ]
    tasks += [
        (stage.stage, None, stage.log)
        for stage in overview.stages
        if {"failed", "cancelled"} & set(stage.tasks) and stage.why not in BLOCKED  # the log of the cause is enough
    ]
    names = [
        Path(log).stem
        for stage, shard, log in tasks
        if log and (not options.shards or shard in options.shards) and (not options.stages or stage in options.stages)
    ]
    return list(dict.fromkeys(names))  # shards may share the log of their array task


def _nothing_alive(collector: StatusCollector) -> Callable[[], bool]:
    """Return a function that reports whether nothing works on a run any more. It looks every few seconds at most."""
    looked, alive = 0.0, True

    def is_over() -> bool:
        nonlocal looked, alive
        if time.monotonic() - looked > QUERY_INTERVAL_SECONDS:
            alive = collector.collect().is_alive
            looked = time.monotonic()
        return not alive

    return is_over


def _print_logs(lines: Iterator[tuple[Path, str]], prefixed: bool) -> None:
    """Print lines of logs: each after the name of its log, or below a heading with the path."""
    last = None
    for path, line in lines:
        if prefixed:
            print_lines(f"{path.stem:<13} {line}")
            continue
        if path != last:
            print_lines(f"==> {path} <==")
            last = path
        print_lines(line)
