"""Check before submitting that cluster and account accept that many jobs. The error says how many shards fit."""

from collections.abc import Sequence

from embedkit.errors import UsageError
from jobs.profiles import Profile, Resources
from jobs.slurm import Site, Task, read_site, with_accounts
from jobs.submit.accepted_shards import limits_problem
from jobs.submit.chain import ChainJob
from jobs.submit.check_profile.nodes import eligible_nodes, hosts_of
from jobs.submit.check_profile.whole_nodes import fix_idle_gpus, idle_gpus


def check_limits(profile: Profile, jobs: Sequence[ChainJob], queued: Sequence[Task], site: Site | None = None) -> None:
    """Check that jobs fit into the limits of the cluster and the account.

    Args:
        profile: the site's.
        jobs: what is to be submitted.
        queued: the user's tasks that are queued or running and will stay.
        site: the cluster with its accounts, if it was read already.

    Raises:
        UsageError: they do not fit: the error names the limit and the number of shards that fits. Or each task of
            embed would hold a whole node and use only some of its GPUs.
        EmbedkitError: Slurm does not answer.
    """
    problem = submit_problem(profile, jobs, site or read_site_limits(), queued)
    if problem is not None:
        raise UsageError(problem)


def read_site_limits() -> Site:
    """Read the cluster with its accounts. Raises EmbedkitError if Slurm does not answer."""
    return with_accounts(read_site(need_partitions=False))


def submit_problem(profile: Profile, jobs: Sequence[ChainJob], site: Site, queued: Sequence[Task]) -> str | None:
    """Why a submit of these jobs is refused; None if it is not. The arguments are those of `check_limits`."""
    embed = profile.stages["embed"]
    waste = _idle_gpus_problem(embed, site) if any(job.indices for job in jobs) else None
    return waste or limits_problem(embed, jobs, site, queued)


def _idle_gpus_problem(resources: Resources, site: Site) -> str | None:
    """Say that a task of embed would get a whole node and use only some of its GPUs; None if it would not.

    It would waste GPUs, not damage results. So where the cluster does not describe its nodes, nothing is refused.
    """
    if not resources.gpu_count:
        return None
    names = site.partition_names(resources.partition)
    partitions = [site.partitions[name] for name in names if name in site.partitions]
    if not any(resources.exclusive or partition.exclusive for partition in partitions):
        return None
    hosts = hosts_of(resources)
    for partition in partitions:
        eligible = eligible_nodes(resources, site.nodes_of(partition.name), hosts)
        problem = idle_gpus(resources, partition, eligible)
        if problem is not None:
            return f"[embed]: {problem}; {fix_idle_gpus(eligible)}. `embedkit profile check` says more"
    return None
