"""`embedkit submit --dry-run`: the jobs, what they ask for, what the run will take, and if there is room for it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from embedkit.check.status import ShardStatus, StatusReader
from embedkit.documents.schema import RunConfig
from embedkit.forecast.disk_space import Space, free_bytes, shortfall
from embedkit.forecast.estimate import PROBES, Estimate, estimate_rows
from embedkit.forecast.footprint import footprint
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder
from jobs.monitor.prediction import Scale, measure, scale, seconds_until_done
from jobs.profiles.schema import Profile, Resources
from jobs.submit.chain import ChainJob, whole_chain
from jobs.submit.script import make_script
from jobs.submit.state import default_analyze, default_preflight

if TYPE_CHECKING:
    from rich.console import Console


def print_forecast(
    run: RunFolder,
    config: RunConfig,
    profile: Profile,
    parallel: int,
    console: "Console",
    scripts: bool,
    preflight: bool | None = None,
    analyze: bool | None = None,
) -> None:
    """Print what would be submitted and what it would take; `scripts`: the text for sbatch too.

    `preflight` and `analyze` as they were asked for, None if they were not.
    """
    from rich.table import Table

    plan = read_plan(run, config) if run.plan.exists() else None
    estimate = estimate_rows(config, plan, PROBES)
    shards = config.request.shards or estimate.shards or 1
    wanted = default_preflight(run, config) if preflight is None else preflight
    analyzed = default_analyze(run) if analyze is None else analyze
    jobs = whole_chain(shards, parallel, wanted, profile.stages["embed"].gpus_per_job, analyzed)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    say(f"run {run.path} (nothing is submitted)")
    table = Table("stage", "tasks", "at once", "waits for", "asks for", box=None, pad_edge=False)
    for job in jobs:
        tasks = f"{job.tasks:,}" + (f" of {job.per_job} shards" if job.per_job > 1 else "")
        at_once = min(max(parallel // job.per_job, 1), job.tasks) if job.array else 1
        table.add_row(job.stage, tasks, str(at_once), job.dependency, _asks(profile, job))
    console.print(table, highlight=False, markup=False)
    begun = StatusReader(run).read().shards if plan is not None else ()
    speed = scale(profile.stages["embed"].predicted_gpu, estimate.gpu_ratios, measure(begun))
    unit = "GPU" if config.request.device == "cuda" else "CPU task"
    for line in _amounts(estimate, shards, parallel, unit, speed, begun):
        say(line)
    room = footprint(estimate, config)
    say(f"writes   {room.bytes / 1e9:,.1f} GB in {room.files:,} files, {room.peak_bytes / 1e9:,.1f} GB on the way")
    space = free_bytes(run.path)
    say(f"space    {_describe(space)}")
    short = shortfall(room, space)
    if short is not None:
        say(f"WARNING  {short}")
    if scripts:
        for job in jobs:
            say(f"\n--- {job.stage}\n{make_script(run, profile, job)}")


def _describe(space: Space) -> str:
    inodes = "" if space.files is None else f" and {space.files:,} files"
    free = f"{space.bytes / 1e9:,.1f} GB{inodes} are free at {space.folder}"
    if space.quotas is None:
        return f"{free}; no quota is known"
    left = [f"{quota.of}: {quota.bytes / 1e9:,.1f} GB" for quota in space.quotas if quota.bytes is not None]
    return f"{free}; left of quotas: {', '.join(left) or 'no limit'}"


def _asks(profile: Profile, job: ChainJob) -> str:
    resources: Resources = profile.stages[job.stage]
    gpus = f"{resources.gpus} GPU" if resources.gpus else resources.gres
    asked = [
        f"partition {resources.partition}" if resources.partition else None,
        f"{resources.cpus} CPUs" if resources.cpus else None,
        gpus,
        f"{resources.mem:,} MB" if resources.mem else None,
        f"{timedelta(minutes=resources.time)}" if resources.time else None,
    ]
    return ", ".join(text for text in asked if text) or "the site's defaults"


def _amounts(
    estimate: Estimate, shards: int, parallel: int, unit: str, speed: Scale, begun: Sequence[ShardStatus]
) -> list[str]:
    """Lines of rows, tokens and hours; `begun` are the shards as they are, if there is a plan."""
    about = "" if estimate.basis == "plan" else "at most " if estimate.at_most else "about "
    lines = [
        f"rows     {about}{estimate.rows:,} kept of {estimate.rows_chosen:,} chosen",
        f"tokens   {about}{estimate.tokens:,}, {about}{estimate.tokens // max(shards, 1):,} a shard",
    ]
    if not estimate.seconds:
        return lines
    if begun:
        shares = [(shard.predicted_seconds, 1 - shard.tokens_done / max(shard.tokens, 1)) for shard in begun]
        left = [seconds * share * speed.ratio for seconds, share in shares if share > 0]
    else:
        left = [estimate.seconds * speed.ratio / shards] * shards
    hours, of_all = sum(left) / 3600, ""
    if any(shard.tokens_done for shard in begun):
        of_all = f" left of {estimate.seconds * speed.ratio / 3600:,.1f}"
    at_once = min(parallel, len(left))
    wall = seconds_until_done((), left, at_once) if left else 0.0
    finish = datetime.now().astimezone() + timedelta(seconds=wall)
    lines.append(
        f"embed    {about}{hours:,.1f} {unit} hours{of_all}, {wall / 3600:,.1f} hours on {at_once} at once: "
        f"{finish:%a %d %b %H:%M} if they began now (prepare, starts of engines and merge aside)"
    )
    if speed.basis:
        lines.append(f"speed    {speed.basis}")
    return lines
