"""The command `submit`: a whole run as Slurm jobs."""

import shlex
from dataclasses import dataclass

import click

from embedkit.analysis.options import Options, require_libraries
from embedkit.documents import RunConfig
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.cli.decide import PROFILE_IS_NEEDED
from jobs.cli.forecast import ForecastOptions, print_forecast
from jobs.cli.open_run import OpenMode, locate_run, open_run
from jobs.cli.options import gathered_into
from jobs.cli.request_options import RequestOptions, request_options
from jobs.cli.submission import job_options, print_submission, profile_again, with_environment
from jobs.output import new_console
from jobs.profiles import Profile, load_profile, with_overrides
from jobs.submit import ProfileCheck, SiteLimits, SubmitOptions, refuse_if_active, submit_missing

SAID_BY_PLAN = ("gpu models", "exclusive", "shards", "at once")
"""Findings of the profile check that the plan has in its own lines."""


@dataclass(frozen=True, kw_only=True)
class SubmitCommandOptions:
    """The options of `submit` besides the request; None if they were not typed."""

    profile_name: str | None
    no_profile_check: bool
    preflight: bool | None
    analyze: bool | None
    allow_mixed: bool | None
    shards_per_task: int | None
    dry_run: bool
    scripts: bool


@click.command()
@request_options
@job_options
@click.option("--scripts", is_flag=True, help="With --dry-run: print the whole script of each job.")
@gathered_into(SubmitCommandOptions)
def submit(request: RequestOptions, options: SubmitCommandOptions) -> None:
    """Submit a whole run to Slurm.

    The jobs are prepare, preflight, embed (an array with one task per shard) and merge. They wait for each other;
    the command returns at once. --num-gpus is the number of shards embedded at once.
    """
    if options.profile_name is None and not request.resume:
        raise UsageError(PROFILE_IS_NEEDED)
    profile = None
    if options.profile_name is not None:
        profile = with_environment(load_profile(options.profile_name), _run_to_resume(request))
        profile = with_overrides(profile, shards_per_task=options.shards_per_task)
    if options.analyze:
        require_libraries(Options())
    limits = None if profile is None else _site_limits(profile, options)
    mode: OpenMode = "plan" if options.dry_run else "submit"
    folder, config = open_run(request, mode, limits=limits, check=limits.check if limits is not None else None)
    if profile is None or limits is None:
        profile = with_overrides(profile_again(folder, None), shards_per_task=options.shards_per_task)
        limits = _site_limits(profile, options)
    _refuse_unasked_cpus(request, folder, config, profile)
    if folder.config.exists():
        refuse_if_active(folder)
    parallel = request.num_gpus or config.num_gpus
    preflight, analyze = options.preflight, options.analyze
    if options.dry_run:
        dry_run = ForecastOptions(
            parallel=parallel,
            scripts=options.scripts,
            preflight=preflight,
            analyze=analyze,
            allow_mixed=options.allow_mixed,
        )
        site = None if limits.known is None else limits.known.site
        limits.profile_check.warn(folder, profile, limits.stages(config), site, without=SAID_BY_PLAN)
        print_forecast(folder, config, limits, dry_run, new_console())
        return
    how = SubmitOptions(
        parallel=parallel,
        why="submit",
        preflight=preflight,
        analyze=analyze,
        allow_mixed=options.allow_mixed,
        profile_check=limits.profile_check,
    )
    done = submit_missing(folder, config, profile, how)
    print_submission(folder, config, done)


def _run_to_resume(request: RequestOptions) -> RunFolder | None:
    """The run that is resumed; None for a new one."""
    return locate_run(request) if request.resume else None


def _refuse_unasked_cpus(request: RequestOptions, run: RunFolder, config: RunConfig, profile: Profile) -> None:
    """Raise UsageError if GPUs would idle because `run` or `prepare` chose CPUs on a machine without GPUs.

    `--device cpu` is obeyed, whenever it was typed, and so is a run that was submitted before.
    """
    typed = "device" in request.typed or any(
        word.partition("=")[0] == "--device" for word in shlex.split(config.asked.get("command", ""))
    )
    chosen = config.request.device == "cpu" and config.request.engine != "hash" and not typed
    if chosen and profile.stages["embed"].gpu_count and not run.submissions.exists():
        raise UsageError(
            f"{run.path} is to be embedded on CPUs, because the machine that made it showed no GPU to its engine, but "
            f"[embed] of {profile.path} gets GPUs, which would idle.\nFor GPUs make a new run with `embedkit submit` "
            "or `embedkit fetch`, or this one again with --overwrite. To use CPUs all the same, add --device cpu"
        )


def _site_limits(profile: Profile, options: SubmitCommandOptions) -> SiteLimits:
    return SiteLimits(
        profile=profile,
        preflight=options.preflight,
        analyze=options.analyze,
        profile_check=ProfileCheck(wanted=not options.no_profile_check),
        dry_run=options.dry_run,
    )
