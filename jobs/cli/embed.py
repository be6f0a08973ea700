"""The command `embed`: embed shards in this process."""

import click

from embedkit.documents import RunConfig, read
from embedkit.embed import embed_shards
from embedkit.errors import UsageError
from embedkit.prepare import read_plan
from embedkit.run import RunFolder, program
from embedkit.storage import match_umask, wait_for_files
from embedkit.terminal import command_line
from jobs.cli.errors import with_resume_hint
from jobs.cli.options import allow_mixed_option, run_argument
from jobs.local import watching
from jobs.output import new_console, print_lines


@click.command()
@run_argument
@click.option("--shard", "shards", type=click.IntRange(0), multiple=True, help="Only this shard; repeatable.")
@allow_mixed_option
def embed(folder: RunFolder, shards: tuple[int, ...], allow_mixed: bool) -> None:
    """Embed the unfinished shards in this process.

    Shards are embedded one after another with one engine.
    """
    wait_for_files([folder.plan])
    plan = read_plan(folder, read(folder.config, RunConfig))
    for shard in shards:
        if shard >= len(plan.shards):
            raise UsageError(f"--shard {shard}: the run has shards 0 to {len(plan.shards) - 1}")
    match_umask(folder.path)
    with watching(folder, new_console(), ["embed"]), with_resume_hint(folder):
        embed_shards(folder, list(shards) or list(range(len(plan.shards))), allow_mixed)
    print_lines(f"Next, once all shards are done: {command_line([program(), 'merge', str(folder.path)])}")
