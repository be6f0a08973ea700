"""The command `prepare`: create a run and prepare it."""

import click

from embedkit.prepare import prepare as prepare_run
from embedkit.run import program
from embedkit.terminal import command_line
from jobs.cli.errors import with_resume_hint
from jobs.cli.open_run import open_run
from jobs.cli.request_options import RequestOptions, request_options
from jobs.cli.summary import copied_lines
from jobs.local import watching
from jobs.output import new_console, print_lines
from jobs.records import record_times


@click.command()
@request_options
@click.option("--workers", type=click.IntRange(1), help="Number of processes.  [default: one per CPU]")
def prepare(request: RequestOptions, workers: int | None) -> None:
    """Create a run and prepare it.

    Prepare extracts the texts, counts tokens, drops rows that cannot be embedded and plans the shards.
    """
    folder, config = open_run(request, prepares_here=True)
    times = record_times(folder, "prepare", folder.plan)
    with watching(folder, new_console(), ["prepare"]), with_resume_hint(folder), times:
        plan = prepare_run(folder, workers)
    print_lines(*(f"warning: {warning}" for warning in plan.warnings), *copied_lines(config, plan))
    print_lines(
        f"{plan.rows_kept:,} of {plan.rows_chosen:,} rows kept, {plan.tokens:,} tokens, {len(plan.shards)} shards. "
        f"Next: {command_line([program(), 'embed', str(folder.path)])}"
    )
