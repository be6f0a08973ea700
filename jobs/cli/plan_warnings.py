"""What a plan warns of: limits of the site, GPUs of several models, shards beyond the time limit, a run of weeks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from embedkit.forecast import Estimate
from embedkit.prepare import REFERENCE
from jobs.profiles import Resources
from jobs.submit import ChainJob, SiteLimits, default_time_of, mixed_gpus, submit_problem

LONG = timedelta(days=7)
"""A plan warns of an embed stage that takes longer."""
DAY = "%a %Y-%m-%d"


@dataclass(frozen=True)
class Schedule:
    """The hours of embed. `left`: seconds of each unfinished shard; `wall`: seconds until all of them are embedded."""

    left: Sequence[float]
    at_once: int
    wall: float

    @property
    def end(self) -> datetime:
        """When embed would end if it began now."""
        return datetime.now().astimezone() + timedelta(seconds=self.wall)


def plan_warnings(
    jobs: Sequence[ChainJob], limits: SiteLimits, estimate: Estimate, schedule: Schedule | None
) -> list[str]:
    """Return the lines of a plan that warn, each with what to change.

    Args:
        jobs: what would be submitted.
        limits: the profile's site.
        estimate: what the request takes.
        schedule: when which shards would be embedded; None if the engine takes no time.
    """
    embed, now = limits.profile.stages["embed"], limits.known
    lines = [] if now is not None else [f"limits   {limits.unknown}"]
    warnings: list[str | None] = []
    if now is not None:
        warnings.append(submit_problem(limits.profile, jobs, now.site, now.queued))
        warnings.append(mixed_gpus(embed, now.site))
    if schedule is not None and schedule.left:
        warnings += [_beyond_the_limit(jobs, limits, schedule), _takes_long(embed, estimate, schedule)]
    return lines + [f"WARNING  {warning}" for warning in warnings if warning]


def _beyond_the_limit(jobs: Sequence[ChainJob], limits: SiteLimits, schedule: Schedule) -> str | None:
    """Say that a task needs more than its time limit. It works all the same: the task is requeued, and continues."""
    embed, most = limits.profile.stages["embed"], limits.most_shards(jobs)
    minutes, of = embed.time, ""
    if minutes is None and limits.known is not None:
        minutes, of = default_time_of(embed, limits.known.site)
    longest = max(schedule.left)
    if not minutes or longest <= minutes * 60 - embed.signal_seconds:
        return None
    more = "" if most is not None and most <= len(schedule.left) else ", or plan a new run with more --shards"
    starts = math.ceil(longest / max(minutes * 60 - embed.signal_seconds, 60))
    return (
        f"a shard needs about {longest / 3600:,.1f} hours, but the time limit of a task is {timedelta(minutes=minutes)}"
        f"{of}: Slurm would start each task about {starts:,} times, and every start loads the model again. Raise time "
        f"in [embed] of the profile{more}"
    )


def _takes_long(embed: Resources, estimate: Estimate, schedule: Schedule) -> str | None:
    """Say that embed would take more than LONG, why, and what to change."""
    if schedule.wall <= LONG.total_seconds():
        return None
    total = sum(schedule.left)
    enough = math.ceil(total / LONG.total_seconds())
    shards = f" with at least as many --shards (now {len(schedule.left):,})" if enough > len(schedule.left) else ""
    more = f"embed more at once: --num-gpus {enough:,}{shards} takes about a week"
    if enough <= schedule.at_once:
        more = f"choose a number of shards that is a multiple of the {schedule.at_once:,} at once"
    days = schedule.wall / 86_400
    text = f"embed would end on {schedule.end:{DAY}}, {days:,.0f} days after it began: "
    if estimate.cpu_ratio is None:
        return f"{text}{schedule.at_once:,} GPUs are few for this many tokens. Choose fewer rows, or {more}"
    ratio = f"{estimate.cpu_ratio:,.0f}" if estimate.cpu_ratio >= 10 else f"{estimate.cpu_ratio:.1f}"
    gpus = "" if embed.gpu_count else "set gpus = 1 in [embed] of the profile and "
    return (
        f"{text}the run is planned on CPUs, where a task takes about {ratio} times as long as one {REFERENCE.upper()} "
        f"GPU. To use GPUs, {gpus}plan a new run with --device cuda. Or choose fewer rows, or {more}"
    )
