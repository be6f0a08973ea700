"""The commands that look after a run: status, logs and cancel."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedkit.errors import EmbedkitError
from jobs.cli.options import new_console, output_dir_option, run_argument

if TYPE_CHECKING:
    from rich.console import Console

    from embedkit.run import RunFolder
    from jobs.monitor.collect import StatusCollector
    from jobs.monitor.schema import Overview

REFRESH_SECONDS = 5.0
"""Slurm is asked as often; it has other users."""


@click.command()
@run_argument
@output_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known, as JSON.")
@click.option("--watch", is_flag=True, help="Look again and again, until it is done or nothing is at work on it.")
@click.option("--all-shards", is_flag=True, help="A line for every shard at work, however many there are.")
@click.option("--hung-after", type=click.IntRange(1), metavar="SECONDS",
              help="Quiet after which a shard hangs.  [default: five minutes and five usual chunks]")  # fmt: skip
def status(
    run_name_or_path: str, output_dir: Path, as_json: bool, watch: bool, all_shards: bool, hung_after: int | None
) -> None:
    """How far a run is, what is wrong with it, and what to type.

    Files say what is done; squeue and sacct, if they are there, explain the rest. A shard hangs if nothing of it got
    durable for long; it is slow below 0.6 of the median's speed, measured against the plan's prediction. Exits 0 if
    the run is done, 1 if not.
    """
    from embedkit.run import find_run
    from jobs.cli.output import print_json
    from jobs.monitor.collect import StatusCollector
    from jobs.monitor.screen import print_overview

    folder, console = find_run(run_name_or_path, output_dir), new_console()
    collector = StatusCollector(folder, hung_after)
    found = _watch(folder, collector, console) if watch and not as_json else collector.collect()
    if as_json:
        print_json(found)
    elif not (watch and console.is_terminal):
        print_overview(found, folder, console, all_shards)
    sys.exit(0 if found.stage == "done" else 1)


def _watch(folder: "RunFolder", collector: "StatusCollector", console: "Console") -> "Overview":
    """Show the screen again and again; off a terminal, sparse lines."""
    from jobs.local.progress import follow

    if not console.is_terminal:
        follow(folder, console, lambda: collector.collect().is_alive)
        return collector.collect()
    from rich.live import Live

    from jobs.monitor.screen import screen

    found = collector.collect()
    with Live(screen(found, folder, console), console=console, auto_refresh=False) as live:
        while found.stage != "done" and found.is_alive:
            time.sleep(REFRESH_SECONDS)
            found = collector.collect()
            live.update(screen(found, folder, console), refresh=True)
    return found


@click.command()
@run_argument
@output_dir_option
@click.option("--failed", is_flag=True, help="Of what failed only, and only since its newest start.")
@click.option("--shard", "shards", type=click.IntRange(0), multiple=True, help="Of this shard; repeatable.")
@click.option("--stage", "stages", type=click.Choice(["prepare", "preflight", "embed", "merge", "analyze"]),
              multiple=True, help="Of this stage; repeatable.")  # fmt: skip
@click.option("--lines", type=click.IntRange(0), default=10, show_default=True, help="Last lines of each log.")
@click.option("--follow", is_flag=True, help="Go on as they grow, until nothing is at work on the run; Ctrl-C ends it.")
def logs(
    run_name_or_path: str,
    output_dir: Path,
    failed: bool,
    shards: tuple[int, ...],
    stages: tuple[str, ...],
    lines: int,
    follow: bool,
) -> None:
    """Show the ends of the logs of a run's jobs.

    Of all of them, unless some are asked for. The whole logs are in the run's folder, logs/.
    """
    from embedkit.run import find_run
    from jobs.monitor.collect import StatusCollector
    from jobs.monitor.logs import follow as follow_logs
    from jobs.monitor.logs import newest_attempt, selected
    from jobs.records.log_names import log_name

    folder = find_run(run_name_or_path, output_dir)
    collector = StatusCollector(folder)
    wanted = [log_name("embed", shard) for shard in shards]
    if failed:
        found = [
            (name, newest_attempt(folder.logs / f"{name}.log")) for name in _failed(collector.collect(), wanted, stages)
        ]
        for name, said in found:
            click.echo(f"==> {folder.logs / name}.log <==")
            click.echo("\n".join(said[max(len(said) - lines, 0) :]))
        if not found:
            click.echo("nothing failed")
        return

    def paths() -> list[Path]:
        return selected(folder, wanted, stages)

    if not paths() and not follow:
        raise EmbedkitError(f"{folder.logs}: no such log yet; `embedkit status {folder.name}` says what there is")
    _print_lines(follow_logs(paths, lines, _settled(collector) if follow else lambda: True), prefixed=follow)


def _failed(overview: "Overview", wanted: list[str], stages: tuple[str, ...]) -> list[str]:
    """Names of logs of tasks that failed, of those that are asked for."""
    tasks = [("embed", shard.log) for shard in overview.shards if shard.state in ("failed", "cancelled")]
    tasks += [(stage.stage, stage.log) for stage in overview.stages if {"failed", "cancelled"} & set(stage.tasks)]
    names = [(stage, Path(log).stem) for stage, log in tasks if log]
    return [name for stage, name in names if (not wanted or name in wanted) and (not stages or stage in stages)]


def _settled(collector: "StatusCollector") -> Callable[[], bool]:
    """Whether nothing is at work on a run any more; looks every few seconds, however often it is asked."""
    looked, alive = 0.0, True

    def is_settled() -> bool:
        nonlocal looked, alive
        if time.monotonic() - looked > REFRESH_SECONDS:
            alive = collector.collect().is_alive
            looked = time.monotonic()
        return not alive

    return is_settled


def _print_lines(lines: Iterator[tuple[Path, str]], prefixed: bool) -> None:
    """Print lines of logs, each after the name of its log or below it."""
    last = None
    for path, line in lines:
        if prefixed:
            click.echo(f"{path.stem:<13} {line}")
            continue
        if path != last:
            click.echo(f"==> {path} <==")
            last = path
        click.echo(line)


@click.command()
@run_argument
@output_dir_option
def cancel(run_name_or_path: str, output_dir: Path) -> None:
    """End all that is queued or running of a run.

    What is durable stays: `embedkit rerun RUN` goes on from there.
    """
    from embedkit.run import find_run
    from jobs.submit.cancel import cancel_run

    folder = find_run(run_name_or_path, output_dir)
    done = cancel_run(folder)
    for stage, state, count in done.tasks:
        click.echo(f"cancelled: {count} {stage} {state}")
    if done.jobs:
        click.echo(f"jobs {', '.join(done.jobs)}; tasks that run drop what is in hand and end within seconds")
    if done.process is not None:
        click.echo(f"interrupted: process {done.process}")
    if not done.jobs and done.process is None:
        click.echo("nothing of it is queued or running")
    else:
        click.echo(f"What is done is kept; to go on: {folder.resume_command}")
