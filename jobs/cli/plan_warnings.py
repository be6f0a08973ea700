"""What a plan warns of: limits of the site, GPUs of several models, shards beyond the time limit, a run of weeks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from embedkit.forecast import Estimate
from embedkit.prepare import REFERENCE
from jobs.cli.engine_starts import in_turn_seconds
from jobs.profiles import Profile, Resources
from jobs.submit import (
    ChainJob,
    SiteLimits,
    SiteNow,
    default_time_of,
    mixed_gpus,
    running_limit,
    submit_problem,
)

LONG = timedelta(days=7)
"""A plan warns of an embed stage that takes longer."""
DAY = "%a %Y-%m-%d"


@dataclass(frozen=True)
class Schedule:
    """The hours of embed.

    `left`: seconds of each unfinished shard; `wall`: seconds until all of them are embedded; `in_turn`: how many shards
    a worker of a task embeds one after another.
    """

    left: Sequence[float]
    at_once: int
    wall: float
    in_turn: int = 1

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
    lines = [f"limits   {limits.unknown}"] if now is None else _site_lines(jobs, limits.profile, now, schedule)
    if schedule is not None and schedule.left:
        warnings = (_beyond_the_limit(jobs, limits, schedule), _takes_long(embed, estimate, schedule))
        lines += [f"WARNING  {warning}" for warning in warnings if warning]
    return lines


def _site_lines(jobs: Sequence[ChainJob], profile: Profile, now: SiteNow, schedule: Schedule | None) -> list[str]:
    """Return lines about what the site does not accept, or not at once."""
    embed, lines = profile.stages["embed"], []
    problem = submit_problem(profile, jobs, now.site, now.queued)
    if problem is not None:
        lines.append(f"WARNING  submit would be refused: {problem}")
    mixed = mixed_gpus(embed, now.site)
    if mixed is not None:
        level, text = mixed
        lines.append(f"{'WARNING' if level == 'warning' else level:<9}{text}")
    running = running_limit(embed, now.site)
    if running is not None and schedule is not None and running[0] < schedule.at_once:
        most, why = running
        lines.append(
            f"WARNING  at most {most:,} shards run at once ({why}), so embed takes about "
            f"{schedule.at_once / max(most, 1):.1f} times as long as with {schedule.at_once:,} at once"
        )
    return lines


def _beyond_the_limit(jobs: Sequence[ChainJob], limits: SiteLimits, schedule: Schedule) -> str | None:
    """Say that a task needs more than its time limit. It works all the same: the task is requeued, and continues."""
    embed, most = limits.profile.stages["embed"], limits.most_shards(jobs)
    minutes, of = embed.time, ""
    if minutes is None and limits.known is not None:
        minutes, of = default_time_of(embed, limits.known.site)
    longest = max(schedule.left)
    if not minutes:
        return None
    if longest <= minutes * 60 - embed.signal_seconds:
        return _too_many_in_turn(schedule, minutes, embed.signal_seconds)
    more = "" if most is not None and most <= len(schedule.left) else ", or plan a new run with more --shards"
    starts = math.ceil(longest / max(minutes * 60 - embed.signal_seconds, 60))
    return (
        f"a shard needs about {longest / 3600:,.1f} hours, but the time limit of a task is {timedelta(minutes=minutes)}"
        f"{of}: Slurm would start each task about {starts:,} times, and every start loads the model again. Raise time "
        f"in [embed] of the profile{more}"
    )


def _too_many_in_turn(schedule: Schedule, minutes: int, signal_seconds: int) -> str | None:
    """Say that the shards of a worker do not all fit its time limit; None if they do."""
    longest = max(in_turn_seconds(schedule.left, schedule.in_turn))
    if longest <= minutes * 60 - signal_seconds:
        return None
    return (
        f"shards_per_task = {schedule.in_turn}: so many shards need about {longest / 3600:,.1f} hours, but the time "
        f"limit of a task is {timedelta(minutes=minutes)}: shards that do not fit are left for a rerun. Raise time in "
        "[embed] of the profile, or lower shards_per_task"
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
