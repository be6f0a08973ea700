"""Check before submitting that cluster and account accept that many jobs. The error says how many shards fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from embedkit.documents import RunConfig
from embedkit.errors import UsageError
from jobs.profiles import Profile, Resources
from jobs.slurm import Site, Task, queue, read_site, require_slurm, with_accounts
from jobs.submit.account_limits import SUBMIT_FIELDS, account_of, limit_rows
from jobs.submit.chain import ChainJob, whole_chain
from jobs.submit.check_profile.whole_nodes import refuse_idle_gpus


@dataclass(frozen=True)
class Limit:
    """At most so many jobs, queued or running; each task of an array counts as one.

    Only jobs of these accounts or of this QOS count; empty: all jobs.
    """

    name: str
    most: int
    accounts: frozenset[str] = frozenset()
    qos: str = ""

    def counted(self, queued: Sequence[Task]) -> int:
        """How many of this user's tasks count."""
        in_accounts = [task for task in queued if not self.accounts or task.account in self.accounts]
        return sum(self.qos in ("", task.qos) for task in in_accounts)


def check_new_run(profile: Profile, preflight: bool | None, analyze: bool | None, config: RunConfig) -> None:
    """Raise before a run is created that could not be submitted.

    Args:
        profile: the site's.
        preflight: --preflight or --no-preflight; None if neither was given.
        analyze: --analyze or --no-analyze; None if neither was given.
        config: the run's.

    Raises:
        UsageError: as check_limits.
        EmbedkitError: there is no Slurm here, or it does not answer.
    """
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
        refuse_idle_gpus(embed, site)
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


def submit_limits(resources: Resources, site: Site) -> list[Limit]:
    """The limits on jobs of these resources that are queued or running: the cluster's, then the account's by size."""
    limits = sorted(_account_limits(resources, site), key=lambda limit: limit.most)
    return [Limit("the cluster's MaxJobCount", int(site.settings.get("MaxJobCount", "10000"))), *limits]


def _account_limits(resources: Resources, site: Site) -> Iterator[Limit]:
    # A user's row repeats the limits that the account sets, so the account's row comes first: the message names it.
    account = account_of(resources, site)
    for row in sorted(limit_rows(resources, site), key=lambda limit: bool(limit.row.get("User"))):
        for field, most in row.numbers(SUBMIT_FIELDS):
            if row.qos or field.startswith("Grp"):
                yield Limit(f"{field} of {row.name}", most, row.accounts, row.qos)
            elif row.row["Account"] == account:  # Slurm applies Max limits to the job's own association alone
                yield Limit(f"{field} of {row.name}", most, frozenset({account}))


def _check_array_size(arrays: Sequence[ChainJob], site: Site) -> None:
    most = int(site.settings.get("MaxArraySize", "1001"))
    # The last shard, not the highest index: with several shards per task the last shard could not be rerun alone.
    highest = max((job.indices[-1] for job in arrays if job.indices), default=0)
    if highest >= most:
        raise UsageError(
            f"--shards {highest + 1}: the cluster's MaxArraySize is {most}, and the array index is the shard; "
            f"at most {most} shards fit"
        )
