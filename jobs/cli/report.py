"""The command `report`: what a run cost and how it went."""

from pathlib import Path

import click

from embedkit.run import RunFolder
from jobs.cli.clusters import use_cluster_of_run
from jobs.cli.options import json_option, run_argument
from jobs.output import new_console, print_json, print_lines
from jobs.report import make_report, print_run_report, read_inputs, write_page


@click.command()
@run_argument
@json_option
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with a timeline.")
@click.option("--all-shards", is_flag=True, help="Show every shard and attempt, not only the notable ones.")
def report(folder: RunFolder, as_json: bool, html: Path | None, all_shards: bool) -> None:
    """Show what a run cost, per stage, shard and attempt.

    The run may be unfinished. Slurm's accounting is queried once if it is available. "-" stands for unknown.
    """
    use_cluster_of_run(folder)
    made = make_report(read_inputs(folder))
    if html is not None:
        write_page(made, html)
    if as_json:
        print_json(made)
    elif html is not None:
        print_lines(f"written: {html}")
    else:
        print_run_report(made, new_console(), all_shards)
