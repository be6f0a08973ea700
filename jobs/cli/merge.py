"""The command `merge`: check all shards and merge them."""

import click

from embedkit.merge import merge as merge_run
from embedkit.run import RunFolder
from embedkit.storage import match_umask
from jobs.cli.errors import with_resume_hint
from jobs.cli.options import allow_mixed_option, run_argument
from jobs.cli.summary import print_summary
from jobs.output import new_console
from jobs.records import record_times


@click.command()
@run_argument
@allow_mixed_option
def merge(folder: RunFolder, allow_mixed: bool) -> None:
    """Check all shards and merge them.

    Shards are streamed, so memory use does not grow with the run.
    """
    match_umask(folder.path)
    with with_resume_hint(folder):
        with record_times(folder, "merge", folder.success):
            success = merge_run(folder, allow_mixed)
        print_summary(folder, success, new_console())
