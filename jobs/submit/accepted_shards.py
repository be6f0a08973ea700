"""How many shards a site accepts: the only place that decides it.

`submit` refuses by it, the number of shards without --shards is fitted to it, and `profile check` shows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.profiles import Resources
from jobs.slurm import Site, Task
from jobs.submit.account_limits import submit_limits
from jobs.submit.chain import ChainJob


@dataclass(frozen=True, kw_only=True)
class ShardLimit:
    """At most so many shards, by one limit.

    Attributes:
        name: the limit's name, for a message.
        most: its value.
        shards: how many shards fit.
        tasks: how many tasks of embed fit beside the run's other jobs, negative if not even these fit. None: the limit
            counts no jobs, it bounds the number of the last shard.
        queued: jobs of this user that count, queued or running.
    """

    name: str
    most: int
    shards: int
    tasks: int | None = None
    queued: int = 0

    def is_broken_by(self, jobs: Sequence[ChainJob]) -> bool:
        """Whether these jobs are too many, or their array is too long."""
        arrays = [job for job in jobs if job.indices]
        if self.tasks is None:
            return any(job.indices[-1] >= self.shards for job in arrays if job.indices)
        return sum(job.tasks for job in arrays) > self.tasks


def shard_limits(embed: Resources, site: Site, queued: Sequence[Task], others: int) -> list[ShardLimit]:
    """Every limit of the site on the shards of a run.

    Args:
        embed: what a task of embed requests.
        site: the cluster, with the accounts where it enforces limits.
        queued: the user's tasks that are queued or running and will stay.
        others: how many jobs the run has besides the shards.
    """
    # The last shard, not the highest index: with several shards per task the last shard could not be rerun alone.
    limits: list[ShardLimit] = []
    if embed.array:
        most = site.max_array_size
        limits.append(ShardLimit(name="the cluster's MaxArraySize", most=most, shards=max(most, 0)))
    if embed.array and site.max_array_tasks is not None:
        tasks = site.max_array_tasks
        shards = tasks * embed.per_job
        limits.append(ShardLimit(name="the cluster's max_array_tasks", most=tasks, shards=shards, tasks=tasks))
    for limit in submit_limits(embed, site):
        used = limit.counted(queued)
        tasks = limit.most - used - others
        shards = max(tasks, 0) * embed.per_job
        limits.append(ShardLimit(name=limit.name, most=limit.most, shards=shards, tasks=tasks, queued=used))
    return limits


def accepted_shards(embed: Resources, site: Site, queued: Sequence[Task], others: int) -> ShardLimit:
    """The tightest limit on the shards of a run; the arguments are those of `shard_limits`."""
    return min(shard_limits(embed, site, queued, others), key=lambda limit: limit.shards)


def other_jobs(jobs: Sequence[ChainJob]) -> int:
    """How many of these jobs are no array of shards."""
    return sum(job.tasks for job in jobs if not job.indices)


def limits_problem(embed: Resources, jobs: Sequence[ChainJob], site: Site, queued: Sequence[Task]) -> str | None:
    """Which limit jobs break, and how many shards fit; None if they fit.

    Args:
        embed: what a task of embed requests.
        jobs: what is to be submitted.
        site: the cluster, with the accounts where it enforces limits.
        queued: the user's tasks that are queued or running and will stay.
    """
    others = other_jobs(jobs)
    broken = [limit for limit in shard_limits(embed, site, queued, others) if limit.is_broken_by(jobs)]
    if not broken:
        return None
    limit = min(broken, key=lambda one: one.shards)
    indices = [index for job in jobs for index in job.indices or ()]
    if limit.tasks is None:
        return (
            f"--shards {max(indices) + 1}: {limit.name} is {limit.most}, and the array index is the shard; "
            f"at most {limit.shards} shards fit"
        )
    count = sum(job.tasks for job in jobs)
    in_tasks = f" in tasks of {embed.per_job}" if embed.per_job > 1 else ""
    return (
        f"{count} jobs would be submitted ({len(indices)} shards{in_tasks} and {others} more), but {limit.name} is "
        f"{limit.most} and {limit.queued} of yours are queued or running: at most {limit.shards} shards fit"
    )
