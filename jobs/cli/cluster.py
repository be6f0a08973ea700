"""The commands that speak to Slurm: submit and rerun."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from embedkit.errors import EmbedkitError, UsageError
from jobs.cli.options import new_console, open_run, output_dir_option, request_options, run_argument

profile_option = click.option(
    "--profile", "profile_name", metavar="NAME|PATH", help="Site profile: a name in slurm_templates/ or a TOML file."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be submitted, and submit nothing.")
preflight_option = click.option(
    "--preflight/--no-preflight",
    default=None,
    help="A short task before the shards that tries the node and the engine.  [default: but for --engine hash; "
    "in a rerun, as before]",
)

analyze_option = click.option(
    "--analyze/--no-analyze",
    default=None,
    help="A job after merge that analyzes the run.  [default: no; in a rerun, as before]",
)


@click.command()
@request_options
@profile_option
@preflight_option
@analyze_option
@dry_run_option
@click.option("--scripts", is_flag=True, help="With --dry-run: the whole script of each job.")
@click.pass_context
def submit(
    context: click.Context,
    /,
    profile_name: str | None,
    preflight: bool | None,
    analyze: bool | None,
    dry_run: bool,
    scripts: bool,
    **given: Any,
) -> None:
    """Hand a whole run to Slurm: prepare, preflight, embed (an array, a shard a task) and merge.

    Returns at once; the jobs wait for each other. --num-gpus is how many shards are embedded at once.
    """
    from jobs.cli.output import print_resubmission
    from jobs.profiles.load import load_profile
    from jobs.submit.limits import check_new_run
    from jobs.submit.rerun import SubmitOptions, last_profile, submit_missing
    from jobs.submit.state import refuse_if_active

    if profile_name is None and not given["resume"]:
        _need_profile()
    profile = load_profile(profile_name) if profile_name is not None else None
    on_gpus = profile is None or bool(profile.stages["embed"].gpus or profile.stages["embed"].gres)
    if analyze:
        _need_analysis()
    fits = partial(check_new_run, profile, preflight, analyze) if profile is not None else _need_profile
    folder, config = open_run(context, given, "plan" if dry_run else "submit", on_gpus, fits)
    if profile is None:
        profile = load_profile(last_profile(folder)[0])
    if folder.config.exists():
        refuse_if_active(folder)
    parallel = given["num_gpus"] or config.num_gpus
    if dry_run:
        from jobs.cli.forecast import print_forecast

        print_forecast(folder, config, profile, parallel, new_console(), scripts, preflight, analyze)
        return
    options = SubmitOptions(parallel=parallel, why="submit", preflight=preflight, analyze=analyze)
    done = submit_missing(folder, config, profile, options)
    print_resubmission(folder, done, new_console())


def _need_profile(*_: object) -> None:
    raise UsageError("--profile is needed: which partition, time and memory the jobs ask for on this cluster")


def _need_analysis() -> None:
    from embedkit.analysis.stage import Options, require_libraries

    require_libraries(Options())


@click.command()
@run_argument
@output_dir_option
@profile_option
@preflight_option
@analyze_option
@dry_run_option
@click.option(
    "--shard",
    "shards",
    type=click.IntRange(0),
    multiple=True,
    help="Only this shard; repeatable. Also one that failed the same way again and again.",
)
@click.option("--num-gpus", type=click.IntRange(1), help="Shards at once.  [default: as before]")
@click.option("--time", "time_limit", help="Time limit of a shard's task, as Slurm takes it.  [default: the profile's]")
@click.option("--mem", help="Memory of a shard's task.  [default: the profile's; half as much again where it ran out]")
def rerun(
    run_name_or_path: str,
    output_dir: Path,
    profile_name: str | None,
    preflight: bool | None,
    analyze: bool | None,
    dry_run: bool,
    shards: tuple[int, ...],
    num_gpus: int | None,
    time_limit: str | None,
    mem: str | None,
) -> None:
    """Submit again what is neither finished nor queued nor running, and all that follows it.

    Finished shards are never touched. Exits 0 if that is nothing.
    """
    from embedkit.documents.codec import read
    from embedkit.documents.schema import RunConfig
    from embedkit.run import find_run
    from jobs.cli.output import print_resubmission
    from jobs.profiles.load import load_profile, with_overrides
    from jobs.submit.rerun import SubmitOptions, last_profile, submit_missing

    folder = find_run(run_name_or_path, output_dir)
    config = read(folder.config, RunConfig)
    before, parallel = last_profile(folder)
    profile = with_overrides(load_profile(profile_name or before), time=time_limit, mem=mem)
    options = SubmitOptions(
        parallel=num_gpus or parallel or config.num_gpus,
        why="rerun",
        only=shards,
        more_memory=mem is None,
        dry_run=dry_run,
        preflight=preflight,
        analyze=analyze,
    )
    done = submit_missing(folder, config, profile, options)
    print_resubmission(folder, done, new_console())
    left = set(done.state.repeat_failures) - set(shards)
    if left:
        lines = [f"  shard {shard}: {done.state.repeat_failures[shard]}" for shard in sorted(left)]
        raise EmbedkitError(
            "these failed the same way three times without a new chunk, and are not run again by themselves:\n"
            + "\n".join(lines)
            + f"\nlook at logs/embed-{min(left):05d}.log; to try again all the same: embedkit rerun {folder.path} "
            f"--shard {min(left)}"
        )


@click.group()
def profile() -> None:
    """Site profiles: what the jobs ask for on a cluster."""


@profile.command()
@click.argument("name_or_path", metavar="NAME|PATH")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(name_or_path: str, as_json: bool) -> None:
    """Hold a profile against the cluster, stage by stage, and submit nothing.

    A line a finding: what is asked, what the cluster says, what to change. Exits 0 if nothing is refused, else 1.
    """
    import sys

    from jobs.cli.output import print_json
    from jobs.profiles.load import load_profile
    from jobs.submit.check_profile import check_profile

    report = check_profile(load_profile(name_or_path))
    if as_json:
        print_json(report)
    else:
        console = new_console()
        for finding in report.findings:
            console.print(finding.line, highlight=False, soft_wrap=True, markup=False)
        refused = sum(finding.level == "refused" for finding in report.findings)
        said = "nothing is refused" if report.ok else f"{refused} refused"
        console.print(f"profile {report.profile}: {said}", highlight=False, soft_wrap=True, markup=False)
    sys.exit(0 if report.ok else 1)
