"""The command `verify`: read every byte of a run again."""

import sys

import click

from embedkit.check.verify import Report
from embedkit.check.verify import verify as verify_run
from embedkit.run import RunFolder
from jobs.cli.options import json_option, run_argument
from jobs.output import print_json, print_lines


@click.command()
@run_argument
@click.option("--reembed", type=click.IntRange(0), default=0, help="Rows per shard to embed again and compare.")
@click.option(
    "--reembed-seed", type=click.IntRange(0), help="Seed that picks those rows, as an earlier report shows it."
)
@json_option
def verify(folder: RunFolder, reembed: int, reembed_seed: int | None, as_json: bool) -> None:
    """Read every byte of a run again and list problems.

    The run may be unfinished: files that it does not have yet are no problem.
    """
    report = verify_run(folder, reembed, reembed_seed)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    sys.exit(0 if report.ok else 1)


def _print_report(report: Report) -> None:
    for problem in report.problems:
        shard = "" if problem.shard is None else f"shard {problem.shard}: "
        print_lines(f"{shard}{problem.file}: {problem.what}")
    outcome = "all is well" if report.ok else f"{len(report.problems)} problems"
    again = f", {report.reembedded} rows embedded again (seed {report.reembed_seed})" if report.reembedded else ""
    print_lines(
        f"{outcome}: stage {report.stage}, {report.shards_finished}/{report.shards} shards, {report.rows:,} rows, "
        f"{report.bytes_read / 1e6:,.1f} MB read{again}"
    )
    for fix in dict.fromkeys(problem.fix for problem in report.problems):
        print_lines(f"to fix it: {fix}")
