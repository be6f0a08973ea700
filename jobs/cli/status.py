"""The command `status`: how far a run is and what is wrong with it."""

import sys
import time

import click
from rich.console import Console
from rich.live import Live

from embedkit.run import RunFolder
from jobs.cli.clusters import use_cluster_of_run
from jobs.cli.options import json_option, run_argument
from jobs.local import follow
from jobs.monitor import Overview, StatusCollector, print_overview
from jobs.monitor.screen import screen
from jobs.output import new_console, print_json
from jobs.slurm import QUERY_INTERVAL_SECONDS


@click.command()
@run_argument
@json_option
@click.option("--watch", is_flag=True, help="Refresh until the run is done or nothing works on it.")
@click.option("--all-shards", is_flag=True, help="Show a line for every active shard, however many there are.")
@click.option(
    "--hung-after",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="A shard without progress for this long counts as hung.  [default: five minutes and five usual chunks]",
)
def status(folder: RunFolder, as_json: bool, watch: bool, all_shards: bool, hung_after: int | None) -> None:
    """Show progress, problems and the next command to type.

    Progress comes from the run's files; squeue and sacct explain the rest where they are available. A shard is hung
    if it finishes no chunk for long. It is slow below 0.6 of the median speed, relative to the plan's prediction.
    """
    use_cluster_of_run(folder)
    console = new_console()
    collector = StatusCollector(folder, hung_after)
    overview = _watch(folder, collector, console) if watch and not as_json else collector.collect()
    if as_json:
        print_json(overview)
    elif not (watch and console.is_terminal):
        print_overview(overview, folder, console, all_shards)
    sys.exit(0 if overview.stage == "done" else 1)


def _watch(folder: RunFolder, collector: StatusCollector, console: Console) -> Overview:
    """Refresh the screen until the run ends; without a terminal, print a line now and then. Return the last state."""
    if not console.is_terminal:
        follow(folder, console, lambda: collector.collect().is_alive)
        return collector.collect()
    overview = collector.collect()
    with Live(screen(overview, folder, console), console=console, auto_refresh=False) as live:
        while overview.stage != "done" and overview.is_alive:
            time.sleep(QUERY_INTERVAL_SECONDS)
            overview = collector.collect()
            live.update(screen(overview, folder, console), refresh=True)
    return overview
