"""How large an array the cluster takes: asked for before anything is submitted, so that a refusal names what fits."""

import getpass
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from embedkit.documents.schema import RunConfig
from embedkit.errors import EmbedkitError, UsageError
from jobs.profiles.values import Profile, Resources
from jobs.slurm.client import Task, ask, configuration, queue, require_slurm
from jobs.slurm.cluster import accounting_rows
from jobs.submit.chain import ChainJob, whole_chain
from jobs.submit.check_profile import refuse_idle_gpus

ASSOC_FIELDS = ("Account", "User", "MaxSubmit", "GrpSubmit")
QOS_FIELDS = ("Name", "MaxSubmitPU", "MaxSubmitPA", "GrpSubmit")


@dataclass(frozen=True)
class Limit:
    """At most so many jobs; each task of an array counts as one, and so do those that are queued already.

    `account` and `qos`: only jobs of that account or QOS count; "" for any.
    """

    name: str
    most: int
    account: str = ""
    qos: str = ""

    def counted(self, queued: Sequence[Task]) -> int:
        """How many of this user's tasks count."""
        return sum(self.account in ("", task.account) and self.qos in ("", task.qos) for task in queued)


def check_new_run(profile: Profile, preflight: bool | None, analyze: bool | None, config: RunConfig) -> None:
    """Raise before a run is made that could not be submitted: UsageError as check_limits, or there is no Slurm.

    `preflight` and `analyze` as they were asked for, None if they were not.
    """
    require_slurm()
    wanted = config.request.engine != "hash" if preflight is None else preflight
    chain = whole_chain(config.request.shards or 1, 1, wanted, profile.stages["embed"].gpus_per_job, bool(analyze))
    check_limits(profile, chain, queue())


def check_limits(profile: Profile, jobs: Sequence[ChainJob], queued: Sequence[Task]) -> None:
    """Raise UsageError naming the limit and the largest number of shards that fits, if the jobs do not.

    UsageError, too, if each shard's task would hold a whole node and use some of its GPUs.
    """
    settings = configuration()
    arrays = [job for job in jobs if job.indices]
    if arrays:
        refuse_idle_gpus(profile.stages["embed"])
    most = int(settings.get("MaxArraySize", "1001"))
    # Not the highest index, which is lower where a task has several shards: alone, the last one would not fit.
    highest = max((job.indices[-1] for job in arrays if job.indices), default=0)
    if highest >= most:
        raise UsageError(
            f"--shards {highest + 1}: the cluster's MaxArraySize is {most}, and the array's index is the shard; "
            f"{most} shards at most"
        )
    count = sum(job.tasks for job in jobs)
    each = max((job.per_job for job in arrays), default=1)
    limits = [Limit("the cluster's MaxJobCount", int(settings.get("MaxJobCount", "10000")))]
    if "limits" in settings.get("AccountingStorageEnforce", ""):
        limits += account_limits(profile.stages["embed"], settings.get("ClusterName", ""))
    for limit in limits:
        there = limit.counted(queued)
        room = limit.most - there
        if count > room:
            others = count - sum(job.tasks for job in arrays)
            fits = max(room - others, 0) * each
            of_each = f" in tasks of {each}" if each > 1 else ""
            shards = sum(len(job.indices or ()) for job in arrays)
            raise UsageError(
                f"{count} jobs are to be submitted ({shards} shards{of_each} and {others} more), but {limit.name} is "
                f"{limit.most} and {there} of yours are queued or running: {fits} shards at most"
            )


def account_limits(resources: Resources, cluster: str) -> list[Limit]:
    """The limits on submitted jobs of this user's account and QOS on a cluster; none if nobody answers for them."""
    user = getpass.getuser()
    account = resources.account or _default_account(user)
    limits: list[Limit] = []
    # A database may serve several clusters.
    for row in accounting_rows("assoc", ASSOC_FIELDS, *([f"cluster={cluster}"] if cluster else [])) or []:
        if row["Account"] == account and row["User"] in ("", user):
            whose = f"account {account}" + (f", user {user}" if row["User"] else "")
            limits += _limits(row, ("MaxSubmit", "GrpSubmit"), whose, account=account)
    for row in accounting_rows("qos", QOS_FIELDS) or []:
        if row["Name"] == (resources.qos or "normal"):
            limits += _limits(row, ("MaxSubmitPU", "MaxSubmitPA", "GrpSubmit"), f"QOS {row['Name']}", qos=row["Name"])
    return sorted(limits, key=lambda limit: limit.most)


def _limits(
    row: Mapping[str, str], names: Sequence[str], whose: str, account: str = "", qos: str = ""
) -> Iterator[Limit]:
    for name in names:
        if re.fullmatch(r"\d+", row.get(name, "")):
            yield Limit(f"{name} of {whose}", int(row[name]), account, qos)


def _default_account(user: str) -> str:
    try:
        return ask("sacctmgr", "-n", "-P", "show", "user", user, "format=DefaultAccount").strip()
    except EmbedkitError:
        return ""
