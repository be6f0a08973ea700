"""The limits that apply to a job: its associations, its QOS and the QOS of its partitions.

The only place that decides which account and which QOS a job gets. `submit` and `profile check` both use it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.profiles import Resources
from jobs.slurm import Row, Site, Task, number_of

SUBMIT_FIELDS = ("MaxSubmit", "GrpSubmit", "MaxSubmitPU", "MaxSubmitPA")
"""Limits on jobs that are queued or running."""
RUNNING_FIELDS = ("MaxJobs", "GrpJobs", "MaxJobsPU", "MaxJobsPA")
"""Limits on jobs that are running."""


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


@dataclass(frozen=True)
class LimitRow:
    """One row of sacctmgr whose limits apply.

    `name` is for a message. A limit counts the jobs of these accounts or of this QOS; empty: of any. `is_above`: it is
    the row of an account above that of the job. Slurm applies only the Grp limits of these.
    """

    name: str
    row: Row
    accounts: frozenset[str] = frozenset()
    qos: str = ""
    is_above: bool = False

    def get(self, field: str) -> str:
        """A limit; "" if it is not set or does not apply."""
        return "" if self.is_above and not field.startswith("Grp") else self.row.get(field, "")

    def numbers(self, fields: tuple[str, ...]) -> Iterator[tuple[str, int]]:
        """The limits that are set among these fields."""
        for field in fields:
            limit = number_of(self.get(field))
            if limit is not None:
                yield field, limit


def account_of(resources: Resources, site: Site) -> str:
    """The account of a job: the requested one, else the user's default."""
    return resources.account or site.default_account


def qos_of(resources: Resources, site: Site) -> str:
    """The QOS of a job: the requested one, else the default of its association, else Slurm's `normal`.

    "" if none is requested and Slurm did not list the QOS.
    """
    if resources.qos or site.qos is None:
        return resources.qos or ""
    defaults = (row.get("DefaultQOS", "") for row in associations_of(resources, site))
    return next((name for name in defaults if name), "normal")


def associations_of(resources: Resources, site: Site) -> list[Row]:
    """The user's association in the account of a job, then that of the account and those above it."""
    account = account_of(resources, site)
    rows = list(site.associations or ())
    found = [row for row in rows if row.get("Account") == account and row.get("User") == site.user][:1]
    by_account = {row.get("Account", ""): row for row in rows if not row.get("User")}
    seen: set[str] = set()
    while account in by_account and account not in seen:
        seen.add(account)
        found.append(by_account[account])
        account = by_account[account].get("ParentName", "")
    return found


def limit_rows(resources: Resources, site: Site) -> list[LimitRow]:
    """The rows whose limits apply to a job; none where the cluster does not enforce limits."""
    if "limits" not in site.enforced:
        return []
    rows = [
        LimitRow(
            f"account {row['Account']}" + (f", user {row['User']}" if row.get("User") else ""),
            row,
            accounts=_accounts_under(row["Account"], site),
            is_above=row["Account"] != account_of(resources, site),
        )
        for row in associations_of(resources, site)
    ]
    names = site.partition_names(resources.partition)
    of_partitions = [site.partitions[name].get("QoS") for name in names if name in site.partitions]
    by_name = {row.get("Name", ""): row for row in site.qos or ()}
    for name in dict.fromkeys((qos_of(resources, site), *of_partitions)):
        if name in by_name:
            rows.append(LimitRow(f"QOS {name}", by_name[name], qos=name))
    return rows


def _accounts_under(account: str, site: Site) -> frozenset[str]:
    """The account and all accounts below it: a limit of an account counts the jobs of these too."""
    children: dict[str, list[str]] = {}
    for row in site.associations or ():
        if not row.get("User"):
            children.setdefault(row.get("ParentName", ""), []).append(row["Account"])
    found: set[str] = set()
    waiting = [account]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += children.get(name, [])
    return frozenset(found)


def submit_limits(resources: Resources, site: Site) -> list[Limit]:
    """The limits on jobs of these resources that are queued or running: the cluster's, then the account's by size."""
    limits = sorted(_account_limits(resources, site), key=lambda limit: limit.most)
    return [Limit("the cluster's MaxJobCount", site.max_job_count), *limits]


def _account_limits(resources: Resources, site: Site) -> Iterator[Limit]:
    # A user's row repeats the limits that the account sets, so the account's row comes first: the message names it.
    account = account_of(resources, site)
    for row in sorted(limit_rows(resources, site), key=lambda limit: bool(limit.row.get("User"))):
        for field, most in row.numbers(SUBMIT_FIELDS):
            # A Max limit of an account counts the jobs of that account alone.
            accounts = row.accounts if row.qos or field.startswith("Grp") else frozenset({account})
            yield Limit(f"{field} of {row.name}", most, accounts, row.qos)
