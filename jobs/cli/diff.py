"""The command `diff`: do two runs, or a run and the engine here, have the same vectors?"""

import logging
import sys
from pathlib import Path

import click

from embedkit.diff.page import require_folder, write_page
from embedkit.diff.run_now import ROWS, diff_now
from embedkit.diff.text import lines
from embedkit.diff.two_runs import diff_runs
from embedkit.errors import UsageError
from embedkit.run import RunFolder, find_run
from jobs.cli.options import is_typed, json_option, run_argument, tolerance_option
from jobs.output import print_json, print_lines


@click.command()
@run_argument
@click.argument("other", metavar="[OTHER]", required=False)
@click.option("--now", is_flag=True, help="Compare with what the run's model and the engine installed here give.")
@click.option(
    "--model", metavar="MODEL", help="Compare with what this model gives here: a folder, or a model of the Hub."
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=ROWS,
    show_default=True,
    help="Rows to embed, of every source and length. With --now and --model.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all samples.")
@tolerance_option
@json_option
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page.")
def diff(
    folder: RunFolder,
    other: str | None,
    now: bool,
    model: str | None,
    rows: int,
    seed: int,
    tolerance: float | None,
    as_json: bool,
    html: Path | None,
) -> None:
    """Compare the vectors of two runs, or a run with an engine.

    OTHER is a second run: both are compared in the texts that they share. The engine is the one installed here.
    Exits 0 if the vectors agree within a tolerance, else 1.
    """
    if sum((other is not None, now, model is not None)) != 1:
        raise UsageError("diff RUN with what? Type one of: another run, --now, --model MODEL")
    logging.getLogger("embedkit.diff").setLevel(logging.INFO)  # reports that an engine starts, which takes a while
    if html is not None:
        require_folder(html)
    if other is not None:
        output_dir = click.get_current_context().params["output_dir"]
        found = diff_runs(folder, find_run(other, output_dir, is_typed("output_dir")), tolerance, seed)
    else:
        found = diff_now(folder, model, rows, tolerance, seed)
    if html is not None:
        write_page(found, html)
    if as_json:
        print_json(found)
    else:
        print_lines(*lines(found))
        if html is not None:
            print_lines(f"written: {html}")
    sys.exit(0 if found.passed else 1)
