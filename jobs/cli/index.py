"""The command `index`: add row keys to a run of an earlier version."""

import click

from embedkit.embed import index_keys
from embedkit.run import RunFolder
from jobs.cli.options import run_argument
from jobs.output import print_lines


@click.command()
@run_argument
def index(folder: RunFolder) -> None:
    """Add row keys to a run of an earlier version, for --reuse.

    This version makes them with every run. All texts are tokenized again, and compared with what was embedded. Typed
    again, it checks the keys, and makes damaged ones again.
    """
    rows = index_keys(folder)
    print_lines(f"{rows:,} rows have keys now" if rows else "the run has row keys already: nothing to do")
