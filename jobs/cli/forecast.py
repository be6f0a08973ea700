"""`embedkit submit --dry-run`: the jobs, their resources, the expected time, and whether there is enough disk space."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from rich.console import Console
from rich.table import Table

from embedkit.check.status import ShardStatus, StatusReader, share_done
from embedkit.documents import RunConfig
from embedkit.engines import engine_facts
from embedkit.forecast import PROBES, Estimate, Space, estimate_rows, free_bytes, shortfall
from embedkit.forecast.footprint import footprint
from embedkit.prepare import read_plan
from embedkit.run import RunFolder
from embedkit.versions import environment
from jobs.cli.engine_starts import engines_line, in_turn_seconds, start_seconds
from jobs.cli.plan_warnings import DAY, Schedule, plan_warnings
from jobs.cli.summary import copied_lines
from jobs.monitor import Scale, measure, scale, scale_of_curve, seconds_until_done
from jobs.output import print_lines
from jobs.profiles import Profile, Resources
from jobs.submit import (
    ChainJob,
    SiteLimits,
    as_one_chain,
    choose_allow_mixed,
    default_analyze,
    default_preflight,
    make_script,
    one_by_one,
    whole_chain,
)
from jobs.submit.check_profile import refuse_engine, unknown_gpu


@dataclass(frozen=True, kw_only=True)
class ForecastOptions:
    """What a dry run assumes and prints.

    Attributes:
        parallel: shards embedded at once.
        scripts: whether to print the script of each job too.
        preflight: whether the run gets a preflight; None: as before.
        analyze: whether the run is analyzed after merge; None: as before.
        allow_mixed: whether shards of different engines are accepted; None: as before.
    """

    parallel: int
    scripts: bool
    preflight: bool | None
    analyze: bool | None
    allow_mixed: bool | None = None


def print_forecast(
    run: RunFolder, config: RunConfig, limits: SiteLimits, options: ForecastOptions, console: Console
) -> None:
    """Print what would be submitted, how long it would take and how much it would write.

    Args:
        run: the run; its folder may not exist yet.
        config: its configuration.
        limits: those of the site, with its profile.
        options: what to assume and to print.
        console: for the table of jobs.

    Raises:
        UsageError: the engine cannot use what a task of embed gets.
    """
    profile = limits.profile
    plan = read_plan(run, config) if run.plan.exists() else None
    begun = StatusReader(run).read().shards if plan is not None else ()
    is_embedded = bool(begun) and all(shard.state == "done" for shard in begun)
    warning = "" if is_embedded else refuse_engine(profile, config.request.engine, config.request.device)
    estimate = estimate_rows(config, plan, PROBES)
    shards = config.request.shards or estimate.shards or 1
    parallel = options.parallel
    preflight = default_preflight(run, config) if options.preflight is None else options.preflight
    analyze = default_analyze(run) if options.analyze is None else options.analyze
    embed = profile.stages["embed"]
    jobs = whole_chain(shards, parallel, preflight, embed.per_job, analyze, embed.array, embed.shards_per_task)
    allow_mixed = choose_allow_mixed(run, config, options.allow_mixed)
    jobs = as_one_chain(jobs, allow_mixed)
    print_lines(f"run {run.path} (nothing is submitted)", f"engine {engine_facts(config, environment()).engine_line}")
    if config.request.prefix:
        print_lines(f"prefix {config.request.prefix!r} before each row")
    if warning:
        print_lines(f"WARNING  {warning}")
    console.print(_table(jobs, profile), highlight=False)
    speed = _speed(config, estimate, limits, begun)
    unit = "GPU" if config.request.device == "cuda" else "CPU task"
    in_turn = embed.shards_per_task
    schedule = _schedule(estimate, shards, parallel, speed, begun, in_turn) if estimate.seconds else None
    copied = [] if plan is None else copied_lines(config, plan)
    print_lines(*_amounts(estimate, shards, unit, speed, begun, schedule), *copied, *_disk(run, config, estimate))
    if schedule is not None and schedule.left:
        print_lines(*engines_line(schedule.left, parallel, in_turn, start_seconds(run)))
    print_lines(*plan_warnings(_unfinished(jobs, begun), limits, estimate, schedule))
    if options.scripts:
        print_lines(*(_script(run, profile, job) for job in jobs))


def _speed(config: RunConfig, estimate: Estimate, limits: SiteLimits, begun: Sequence[ShardStatus]) -> Scale:
    """How fast the run's GPU is, and by what that is known."""
    measured, embed = measure(begun), limits.profile.stages["embed"]
    if config.curve is not None:
        return scale_of_curve(config.curve, measured)
    site = None if limits.known is None else limits.known.site
    speed = scale(embed.predicted_gpu, estimate.gpu_ratios, measured, unknown_gpu(embed, site))
    if embed.curve is None or not estimate.gpu_ratios:
        return speed
    return replace(speed, basis=f"{speed.basis}. The run was made without {embed.curve}, the profile's curve")


def _script(run: RunFolder, profile: Profile, job: ChainJob) -> str:
    """Return the script of a job below its stage; of embed without an array, the first of its jobs."""
    example = one_by_one([job])[0]
    more = f" (the first of {job.tasks:,} jobs)" if job.tasks > 1 and not job.as_array else ""
    return f"\n--- {job.stage}{more}\n{make_script(run, profile, example)}"


def _table(jobs: Sequence[ChainJob], profile: Profile) -> Table:
    """Return one row per job: its stage, tasks, dependency and resources."""
    table = Table("stage", "tasks", "at once", "waits for", "requests", box=None, pad_edge=False)
    for job in jobs:
        tasks = f"{job.tasks:,}" + (f" of {job.per_job} shards" if job.per_job > 1 else "")
        at_once = min(job.tasks_at_once or 1, job.tasks) if job.indices else 1
        table.add_row(job.stage, tasks, str(at_once), job.dependency, _requested(profile, job))
    return table


def _disk(run: RunFolder, config: RunConfig, estimate: Estimate) -> list[str]:
    """Return lines about the files that the run writes and the space for them."""
    need, space = footprint(estimate, config), free_bytes(run.path)
    lines = [
        f"writes   {need.bytes / 1e9:,.1f} GB in {need.files:,} files, {need.peak_bytes / 1e9:,.1f} GB at the peak "
        f"(vectors in {config.request.store})",
        f"space    {_describe(space)}",
    ]
    short = shortfall(need, space)
    return lines if short is None else [*lines, f"WARNING  {short}"]


def _describe(space: Space) -> str:
    inodes = "" if space.files is None else f" and {space.files:,} files"
    free = f"{space.bytes / 1e9:,.1f} GB{inodes} are free at {space.folder}"
    if space.quotas is None:
        return f"{free}; no quota is known"
    left = [f"{quota.of}: {quota.bytes / 1e9:,.1f} GB" for quota in space.quotas if quota.bytes is not None]
    return f"{free}; left in quotas: {', '.join(left) or 'no limit'}"


def _requested(profile: Profile, job: ChainJob) -> str:
    resources: Resources = profile.stages[job.stage]
    gpus = resources.gres
    if resources.gpu_count and not gpus:
        gpus = f"{resources.gpu_count} GPU"
    requested = [
        f"partition {resources.partition}" if resources.partition else None,
        f"{resources.cpus} CPUs" if resources.cpus else None,
        gpus,
        f"{resources.mem:,} MB" if resources.mem else None,
        f"{timedelta(minutes=resources.time)}" if resources.time else None,
    ]
    return ", ".join(text for text in requested if text) or "the site's defaults"


def _unfinished(jobs: Sequence[ChainJob], begun: Sequence[ShardStatus]) -> list[ChainJob]:
    """The jobs without the shards that are finished."""
    done = {shard.shard for shard in begun if shard.state == "done"}
    kept = [
        job if job.indices is None else replace(job, indices=tuple(i for i in job.indices if i not in done))
        for job in jobs
    ]
    return [job for job in kept if job.indices != ()]


def _schedule(
    estimate: Estimate, shards: int, parallel: int, speed: Scale, begun: Sequence[ShardStatus], in_turn: int = 1
) -> Schedule:
    """Predict the seconds of each shard that is left. `begun`: the state of each shard, empty without a plan."""
    if begun:
        shares = [(shard.predicted_seconds, 1 - share_done(shard)) for shard in begun]
        left = [seconds * share * speed.ratio for seconds, share in shares if share > 0]
    else:
        left = [estimate.seconds * speed.ratio / shards] * shards
    turns = in_turn_seconds(left, in_turn)
    at_once = min(parallel, len(turns))
    return Schedule(left, at_once, seconds_until_done((), turns, at_once) if left else 0.0, in_turn)


def _amounts(
    estimate: Estimate,
    shards: int,
    unit: str,
    speed: Scale,
    begun: Sequence[ShardStatus],
    schedule: Schedule | None,
) -> list[str]:
    """Return lines about rows, tokens and hours. `begun`: the state of each shard, empty without a plan."""
    about = "" if estimate.basis == "plan" else "at most " if estimate.at_most else "about "
    lines = [
        f"rows     {about}{estimate.rows:,} kept of {estimate.rows_chosen:,} chosen",
        f"tokens   {about}{estimate.tokens:,}, {about}{estimate.tokens // max(shards, 1):,} per shard",
    ]
    if schedule is None:
        return lines
    hours, of_all = sum(schedule.left) / 3600, ""
    if any(shard.tokens_done for shard in begun):
        of_all = f" left of {estimate.seconds * speed.ratio / 3600:,.1f}"
    lines.append(
        f"embed    {about}{hours:,.1f} {unit} hours{of_all}, {schedule.wall / 3600:,.1f} hours with {schedule.at_once} "
        f"at once: {schedule.end:{DAY} %H:%M} if they began now (without prepare, engine starts and merge)"
    )
    if speed.basis:
        lines.append(f"speed    {speed.basis}")
    return lines
