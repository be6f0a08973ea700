"""The command `certify`: may shards of the engine here join those of a run?"""

import logging
import sys

import click

from embedkit.changes import show_changes
from embedkit.diff.certify import certify as certify_run
from embedkit.diff.changes import engine_changes
from embedkit.diff.run_now import ROWS
from embedkit.diff.text import agreement_lines
from embedkit.documents import Certificate
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.cli.options import json_option, run_argument, tolerance_option
from jobs.output import print_json, print_lines

LEAST_ROWS = 50


@click.command()
@run_argument
@click.option("--engine-now", is_flag=True, help="The engine that is installed here, on this machine's GPU.")
@click.option(
    "--rows",
    type=click.IntRange(LEAST_ROWS),
    default=ROWS,
    show_default=True,
    help="Rows to embed for each engine of the shards, of every source and length.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the sample.")
@tolerance_option
@json_option
def certify(folder: RunFolder, engine_now: bool, rows: int, seed: int, tolerance: float | None, as_json: bool) -> None:
    """Find out whether an engine gives the vectors of a run.

    A sample of the finished rows is embedded again and compared. The result is a certificate in the run. If it
    passed, embed and merge accept shards of both engines. Exits 0 if it passed, else 1.
    """
    if not engine_now:
        raise UsageError(f"certify which engine? For the one that is installed here, type {folder.certify_command}")
    logging.getLogger("embedkit.diff").setLevel(logging.INFO)  # reports that an engine starts, which takes a while
    certificate, path = certify_run(folder, rows, seed, tolerance)
    if as_json:
        print_json(certificate)
    else:
        _print(certificate)
        print_lines(f"written: {path}")
        if certificate.passed and not folder.success.exists():
            print_lines(f"to continue the run: {folder.resume_command}")
    sys.exit(0 if certificate.passed else 1)


def _print(certificate: Certificate) -> None:
    outcome = "passed: the engine here gives" if certificate.passed else "FAILED: the engine here does not give"
    print_lines(f"{outcome} the vectors of the run's shards")
    for compared in certificate.compared:
        shards = f"{len(compared.shards)} shard{'s' if len(compared.shards) > 1 else ''}"
        changes = engine_changes([compared.engine], [certificate.engine])
        what = "made with the same engine" if not changes else "made with another engine (theirs -> here):"
        print_lines(f"{shards}, {compared.rows:,} rows sampled, {what}")
        if changes:
            print_lines(show_changes(changes))
        for view, numbers in compared.views.items():
            print_lines(
                f"  view {view}, {numbers.rows:,} texts:", *(f"    {line}" for line in agreement_lines(numbers))
            )
