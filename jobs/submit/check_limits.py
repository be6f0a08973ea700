"""Check before submitting that cluster and account accept that many jobs. The error says how many shards fit."""

from collections.abc import Sequence

from embedkit.documents import RunConfig
from embedkit.errors import UsageError
from jobs.profiles import Profile, Resources
from jobs.slurm import Site, Task, host_names, queue, read_site, require_slurm, with_accounts
from jobs.submit.account_limits import submit_limits
from jobs.submit.chain import ChainJob, whole_chain
from jobs.submit.check_profile.engine import refuse_engine
from jobs.submit.check_profile.nodes import eligible_nodes
from jobs.submit.check_profile.whole_nodes import fix_idle_gpus, idle_gpus


def check_new_run(profile: Profile, preflight: bool | None, analyze: bool | None, config: RunConfig) -> None:
    """Raise before a run is created that could not be submitted.

    Args:
        profile: the site's.
        preflight: --preflight or --no-preflight; None if neither was given.
        analyze: --analyze or --no-analyze; None if neither was given.
        config: the run's.

    Raises:
        UsageError: as check_limits, or the engine cannot use what a task of embed gets.
        EmbedkitError: there is no Slurm here, or it does not answer.
    """
    refuse_engine(profile, config.request.engine, config.request.device)
    require_slurm()
    with_preflight = config.request.engine != "hash" if preflight is None else preflight
    workers = profile.stages["embed"].gpus_per_job
    check_limits(profile, whole_chain(config.request.shards or 1, 1, with_preflight, workers, bool(analyze)), queue())


def check_limits(profile: Profile, jobs: Sequence[ChainJob], queued: Sequence[Task]) -> None:
    """Check that jobs fit into the limits of the cluster and the account.

    Args:
        profile: the site's.
        jobs: what is to be submitted.
        queued: the user's tasks that are queued or running and will stay.

    Raises:
        UsageError: they do not fit: the error names the limit and the number of shards that fits. Or each task of
            embed would hold a whole node and use only some of its GPUs.
        EmbedkitError: Slurm does not answer.
    """
    site = read_site(need_partitions=False)
    embed = profile.stages["embed"]
    arrays = [job for job in jobs if job.indices]
    if arrays:
        _refuse_idle_gpus(embed, site)
    _check_array_size(arrays, site)
    if "limits" in site.enforced:
        site = with_accounts(site)
    count = sum(job.tasks for job in jobs)
    for limit in submit_limits(embed, site):
        used = limit.counted(queued)
        room = limit.most - used
        if count > room:
            per_job = max((job.per_job for job in arrays), default=1)
            others = count - sum(job.tasks for job in arrays)
            in_tasks = f" in tasks of {per_job}" if per_job > 1 else ""
            shards = sum(len(job.indices or ()) for job in arrays)
            raise UsageError(
                f"{count} jobs would be submitted ({shards} shards{in_tasks} and {others} more), but {limit.name} is "
                f"{limit.most} and {used} of yours are queued or running: at most {max(room - others, 0) * per_job} "
                "shards fit"
            )


def _check_array_size(arrays: Sequence[ChainJob], site: Site) -> None:
    most = site.max_array_size
    # The last shard, not the highest index: with several shards per task the last shard could not be rerun alone.
    highest = max((job.indices[-1] for job in arrays if job.indices), default=0)
    if highest >= most:
        raise UsageError(
            f"--shards {highest + 1}: the cluster's MaxArraySize is {most}, and the array index is the shard; "
            f"at most {most} shards fit"
        )


def _refuse_idle_gpus(resources: Resources, site: Site) -> None:
    """Raise UsageError if a task of embed would get a whole node and use only some of its GPUs.

    It would waste GPUs, not damage results. So where the cluster does not describe its nodes, nothing is refused.
    """
    if not resources.gpu_count:
        return
    names = site.partition_names(resources.partition)
    partitions = [site.partitions[name] for name in names if name in site.partitions]
    if not any(resources.exclusive or partition.exclusive for partition in partitions):
        return
    hosts = {text: host_names(text) for text in (resources.nodelist, resources.exclude) if text}
    for partition in partitions:
        eligible = eligible_nodes(resources, site.nodes_of(partition.name), hosts)
        problem = idle_gpus(resources, partition, eligible)
        if problem is not None:
            raise UsageError(f"[embed]: {problem}; {fix_idle_gpus(eligible)}. `embedkit profile check` says more")
