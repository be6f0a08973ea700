"""The command line. Exit codes: 0 done; 1 failed or incomplete, with what to do next; 2 asked wrongly."""

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import embedkit
from embedkit.errors import EmbedkitError, UsageError
from embedkit.job import enter_job
from jobs.cli.analyze import analyze
from jobs.cli.cluster import profile, rerun, submit
from jobs.cli.options import (
    INTERRUPTED,
    new_console,
    open_run,
    output_dir_option,
    request_options,
    resumable,
    run_argument,
)
from jobs.cli.report import report
from jobs.cli.search import neighbors, search
from jobs.cli.watch import cancel, logs, status
from jobs.slurm.environment import job_of_this_process

if TYPE_CHECKING:
    from embedkit.documents.schema import RunConfig


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(embedkit.__version__, prog_name="embedkit")
def cli() -> None:
    """One checked embedding for every row of a chat data set.

    A RUN is named, or given as a path.
    """


for command in (submit, rerun, status, logs, report, cancel, profile, analyze, search, neighbors):
    cli.add_command(command)


@cli.command()
@request_options
@click.pass_context
def fetch(context: click.Context, /, **given: Any) -> None:
    """Fetch data set and model from the Hub and make the run's folder; start nothing.

    For a machine that can call out, such as a login node: jobs never do. Typed again, it goes on where it was cut
    off, and --run-name alone has the files of an existing run again.
    """
    from jobs.cli.output import print_fetched

    given["resume"] = not given["overwrite"]
    folder, config = open_run(context, given, mode="fetch")
    print_fetched(folder, config, new_console())


@cli.command()
@request_options
@click.pass_context
def run(context: click.Context, /, **given: Any) -> None:
    """Prepare, embed and merge on this machine."""
    from embedkit.documents.codec import read
    from embedkit.documents.schema import Success
    from embedkit.storage.lock import run_lock
    from jobs.cli.output import print_summary
    from jobs.local.queue import make_slots
    from jobs.local.stages import run_stages
    from jobs.submit.state import refuse_if_active

    console = new_console()
    folder, config = open_run(context, given)
    refuse_if_active(folder)
    slots = make_slots(*slots_of(config, given["num_gpus"]))
    console.print(f"run {folder.path}", highlight=False, soft_wrap=True)
    with resumable(folder), run_lock(folder.path / "run.lease", "running this run"):
        run_stages(folder, slots, console)
        print_summary(folder, read(folder.success, Success), console)


@cli.command()
@request_options
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one a CPU]")
@click.pass_context
def prepare(context: click.Context, /, workers: int | None, **given: Any) -> None:
    """Ask for a run and prepare it."""
    from embedkit.prepare.stage import prepare as prepare_run
    from embedkit.run import program
    from jobs.local.progress import watching

    console = new_console()
    folder, _ = open_run(context, given)
    with watching(folder, console), resumable(folder):
        plan = prepare_run(folder, workers)
    console.print(
        f"{plan.rows_kept:,} of {plan.rows_chosen:,} rows kept, {plan.tokens:,} tokens, {len(plan.shards)} shards. "
        f"Next: {shlex.join([program(), 'embed', str(folder.path)])}",
        highlight=False,
        soft_wrap=True,
    )


@cli.command()
@run_argument
@output_dir_option
@click.option("--shard", "shards", type=click.IntRange(0), multiple=True, help="Only this shard; repeatable.")
def embed(run_name_or_path: str, output_dir: Path, shards: tuple[int, ...]) -> None:
    """Embed the shards that are not finished.

    One after another, in this process, with one engine.
    """
    from embedkit.documents.codec import read
    from embedkit.documents.schema import RunConfig
    from embedkit.embed.stage import embed_shards
    from embedkit.prepare.plan import read_plan
    from embedkit.run import find_run, program
    from embedkit.storage.atomic import match_umask
    from jobs.local.progress import watching

    console = new_console()
    folder = find_run(run_name_or_path, output_dir)
    plan = read_plan(folder, read(folder.config, RunConfig))
    for shard in shards:
        if shard >= len(plan.shards):
            raise UsageError(f"--shard {shard}: the run has shards 0 to {len(plan.shards) - 1}")
    match_umask(folder.path)
    with watching(folder, console), resumable(folder):
        embed_shards(folder, list(shards) or list(range(len(plan.shards))))
    next_command = shlex.join([program(), "merge", str(folder.path)])
    console.print(f"Next, once all shards are done: {next_command}", highlight=False, soft_wrap=True)


@cli.command()
@run_argument
@output_dir_option
@click.option("--allow-mixed", is_flag=True, help="Merge shards made on different engines; recorded.")
def merge(run_name_or_path: str, output_dir: Path, allow_mixed: bool) -> None:
    """Check all shards and stream them together."""
    from embedkit.merge.stage import merge as merge_run
    from embedkit.run import find_run
    from embedkit.storage.atomic import match_umask
    from jobs.cli.output import print_summary

    folder = find_run(run_name_or_path, output_dir)
    match_umask(folder.path)
    with resumable(folder):
        print_summary(folder, merge_run(folder, allow_mixed), new_console())


@cli.command()
@run_argument
@output_dir_option
@click.option("--reembed", type=click.IntRange(0), default=0, help="Rows of each shard to embed again and compare.")
@click.option("--reembed-seed", type=click.IntRange(0), help="Which rows those are, as an earlier report named them.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(run_name_or_path: str, output_dir: Path, reembed: int, reembed_seed: int | None, as_json: bool) -> None:
    """Re-read every byte and say what is wrong.

    The run may be finished or not; what it does not have yet is not wrong.
    """
    from embedkit.check.verify import verify as verify_run
    from embedkit.run import find_run
    from jobs.cli.output import print_json, print_report

    found = verify_run(find_run(run_name_or_path, output_dir), reembed, reembed_seed)
    if as_json:
        print_json(found)
    else:
        print_report(found, new_console())
    sys.exit(0 if found.ok else 1)


def main() -> None:
    """Entry point of the console script."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    os.environ["EMBEDKIT_PROGRAM"] = _program()
    enter_job(job_of_this_process())
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("embedkit: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except EmbedkitError as error:
        print(f"embedkit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        from jobs.tasks import describe_os_error

        said = describe_os_error(error)
        if said is None:
            raise
        print(f"embedkit: {said}", file=sys.stderr)
        sys.exit(1)


def _program() -> str:
    """What the person typed to call this program, so that what it prints can be typed too."""
    import shutil

    typed = sys.argv[0]
    if Path(typed).name != "embedkit":
        return "embedkit"
    found = shutil.which("embedkit")
    return "embedkit" if found and Path(found).samefile(typed) else typed


def slots_of(config: "RunConfig", typed: int | None) -> tuple[int, list[str]]:
    """How many jobs at a time, and the CUDA names of their GPUs. Raises UsageError if there are fewer."""
    from jobs.local.queue import visible_gpus

    if config.request.device != "cuda":
        return typed or config.num_gpus, []
    # Not the number of the machine where the run was asked for, which may be a login node.
    found = visible_gpus()
    count = typed or len(found)
    if not 0 < count <= len(found):
        wanted = "the run is asked for on GPUs" if typed is None else f"--num-gpus {typed}"
        raise UsageError(f"{wanted}: this machine shows {len(found)} GPUs")
    return count, found[:count]
