"""The command `rerun`: submit the unfinished part of a run again."""

from dataclasses import dataclass

import click

from embedkit.documents import RunConfig, read
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.cli.options import gathered_into, run_argument
from jobs.cli.submission import job_options, print_submission, profile_again
from jobs.profiles import with_overrides
from jobs.records import log_name
from jobs.submit import ProfileCheck, SubmissionResult, SubmitOptions, last_submission, submit_missing


@dataclass(frozen=True, kw_only=True)
class RerunOptions:
    """The options of `rerun`; None, or no shards, if they were not typed."""

    profile_name: str | None
    no_profile_check: bool
    preflight: bool | None
    analyze: bool | None
    allow_mixed: bool | None
    shards_per_task: int | None
    dry_run: bool
    shards: tuple[int, ...]
    num_gpus: int | None
    time: str | None
    mem: str | None


@click.command()
@run_argument
@job_options
@click.option(
    "--shard",
    "shards",
    type=click.IntRange(0),
    multiple=True,
    help="Only this shard, even if it keeps failing; repeatable.",
)
@click.option("--num-gpus", type=click.IntRange(1), help="Shards at once.  [default: as before]")
@click.option("--time", help="Time limit of each embed task, in Slurm's format.  [default: the profile's]")
@click.option(
    "--mem",
    help="Memory of each embed task.  [default: the profile's; 1.5 times as much for shards that ran out of it]",
)
@gathered_into(RerunOptions)
def rerun(folder: RunFolder, options: RerunOptions) -> None:
    """Submit the unfinished part of a run again.

    That is every shard that is not finished, queued or running, and every stage after it. Finished shards are never
    changed. If nothing is left, it submits nothing and succeeds.
    """
    config = read(folder.config, RunConfig)
    before = last_submission(folder)
    profile = with_overrides(
        profile_again(folder, options.profile_name),
        time=options.time,
        mem=options.mem,
        shards_per_task=options.shards_per_task,
    )
    how = SubmitOptions(
        parallel=options.num_gpus or before.shards_at_once or config.num_gpus,
        why="rerun",
        only=options.shards,
        more_memory=options.mem is None,
        dry_run=options.dry_run,
        profile_check=ProfileCheck(wanted=not options.no_profile_check),
        preflight=options.preflight,
        analyze=options.analyze,
        allow_mixed=options.allow_mixed,
    )
    done = submit_missing(folder, config, profile, how)
    print_submission(folder, config, done)
    _refuse_repeat_failures(folder, done, options.shards)


def _refuse_repeat_failures(folder: RunFolder, done: SubmissionResult, shards: tuple[int, ...]) -> None:
    """Raise EmbedkitError if shards were left out because they keep failing; `shards`: those that were typed."""
    left = sorted(set(done.state.repeat_failures) - set(shards))
    if left:
        lines = [f"  shard {shard}: {done.state.repeat_failures[shard]}" for shard in left]
        raise EmbedkitError(
            "these shards failed the same way three times without a new chunk, so rerun leaves them out:\n"
            + "\n".join(lines)
            + f"\nlook at logs/{log_name('embed', left[0])}.log; "
            f"to try again: {folder.command('rerun')} --shard {left[0]}"
        )
