"""The command `report`: what a run has cost, and how it went."""

from pathlib import Path

import click

from jobs.cli.options import new_console, output_dir_option, run_argument


@click.command()
@run_argument
@output_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, complete.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with a timeline.")
@click.option("--all-shards", is_flag=True, help="Every shard and start, not only those that stand out.")
def report(run_name_or_path: str, output_dir: Path, as_json: bool, html: Path | None, all_shards: bool) -> None:
    """What a run has cost, by stage and shard, and how each start went.

    The run may be finished or not. Slurm's accounting, where there is one, is asked once; what nothing tells is "-".
    """
    from embedkit.run import find_run
    from jobs.cli.output import print_json
    from jobs.report.collect import read_inputs
    from jobs.report.compute import make_report
    from jobs.report.page import write_page
    from jobs.report.text import print_run_report

    made = make_report(read_inputs(find_run(run_name_or_path, output_dir)))
    if html is not None:
        write_page(made, html)
    if as_json:
        print_json(made)
        return
    console = new_console()
    if html is None:
        print_run_report(made, console, all_shards)
    else:
        console.print(f"written: {html}", highlight=False, soft_wrap=True, markup=False)
