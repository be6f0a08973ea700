"""The command `update`: the next run of a data set that has changed."""

from dataclasses import dataclass

import click

from embedkit.data import SCHEME
from embedkit.documents import Plan, RunConfig
from embedkit.errors import UsageError
from embedkit.prepare import prepare, row_changes
from embedkit.row_keys import EarlierRun, open_earlier
from embedkit.run import RunFolder, program
from embedkit.terminal import command_line
from jobs.cli.errors import with_resume_hint
from jobs.cli.open_run import open_update
from jobs.cli.options import gathered_into, run_argument
from jobs.cli.summary import copied_lines
from jobs.local import watching
from jobs.output import new_console, print_lines
from jobs.records import Submissions, record_times


@dataclass(frozen=True, kw_only=True)
class UpdateOptions:
    """What differs from the earlier run, and how it is reused; None or () if it was not typed."""

    dataset: tuple[str, ...]
    config: str | None
    split: str | None
    revision: str | None
    model: str | None
    shards: int | None
    num_gpus: int | None
    reuse_across_engines: bool


@click.command()
@run_argument
@click.option("--dataset", multiple=True, help="The new data, as for run.  [default: that of a Hub data set]")
@click.option("--config", help="Configuration of a Hub data set.  [default: that of the run]")
@click.option("--split", help="Split of a Hub data set.  [default: that of the run]")
@click.option("--revision", help="Commit, tag or branch of a Hub data set.  [default: main]")
@click.option("--model", help="Where the model of RUN is now, if it was moved.")
@click.option("--run-name", required=True, help="Name of the new run. Its folder is beside that of RUN.")
@click.option("--shards", type=click.IntRange(1), help="Number of shards.  [default: one per half hour of GPU time]")
@click.option("--num-gpus", type=click.IntRange(1), help="GPUs to use at once.  [default: as in RUN]")
@click.option(
    "--reuse-across-engines",
    is_flag=True,
    help="Also with an engine that a passed certificate of RUN names (`embedkit certify`).",
)
@click.option("--overwrite", is_flag=True, help="Delete the existing run of this name completely and start again.")
@click.option("--workers", type=click.IntRange(1), help="Number of processes of prepare.  [default: one per CPU]")
@gathered_into(UpdateOptions)
def update(folder: RunFolder, options: UpdateOptions, run_name: str, overwrite: bool, workers: int | None) -> None:
    """Make the next run of data that changed, and reuse vectors.

    Texts that RUN has are not embedded again. All settings are those of RUN. The new run is created and prepared here,
    and nothing is submitted: it says which rows are new, and what to type next.
    """
    earlier = open_earlier(str(folder.path))
    run, config = open_update(run_name, folder, _changes(earlier.config, options), overwrite)
    times = record_times(run, "prepare", run.plan)
    with watching(run, new_console(), ["prepare"]), with_resume_hint(run), times:
        plan = prepare(run, workers)
    print_lines(*(f"warning: {warning}" for warning in plan.warnings))
    _print_report(run, config, plan, earlier)


def _changes(existing: RunConfig, options: UpdateOptions) -> dict[str, object]:
    """The options of the new run that differ from those of the earlier one."""
    repo, request = existing.locations.data_repo, existing.request
    dataset = options.dataset or ((f"{SCHEME}{repo}",) if repo else ())
    if not dataset:
        raise UsageError("--dataset is needed: the run's data are files, so name the new ones")
    is_same_repo = not options.dataset
    changes: dict[str, object] = {
        "dataset": dataset,
        "config": options.config or (request.config if is_same_repo else None),
        "split": options.split or (request.split if is_same_repo else None),
        "revision": options.revision,
        "shards": options.shards,
        "reuse_across_engines": options.reuse_across_engines,
    }
    if_typed = {"num_gpus": options.num_gpus, "model": options.model}
    return changes | {name: value for name, value in if_typed.items() if value is not None}


def _print_report(run: RunFolder, config: RunConfig, plan: Plan, earlier: EarlierRun) -> None:
    """Print which rows are new, what they cost, and the next command."""
    changes = row_changes(run, config, plan, earlier)
    name = earlier.run.name
    print_lines(
        f"since {name}: {changes.kept:,} rows kept, {changes.changed:,} changed, {changes.added:,} added, "
        f"{changes.removed:,} removed",
        *copied_lines(config, plan),
        f"Next: {_next_command(run, earlier.run)}",
    )


def _next_command(run: RunFolder, earlier: RunFolder) -> str:
    """As the earlier run was made: submitted with its last profile, or on this machine."""
    lines = Submissions(earlier).read()
    if not lines:
        return run.resume_command
    return f"{command_line([program(), 'submit', '--resume', '--profile', lines[-1].profile])} {run.where}"
