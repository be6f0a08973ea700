"""Check a partition: whether it exists and is up, who may use it, and its time limit."""

from collections.abc import Iterator
from datetime import timedelta

from jobs.profiles import Resources
from jobs.slurm import Partition, Site, listed, minutes_of
from jobs.submit.account_limits import account_of, qos_of
from jobs.submit.check_profile.finding import Finding, note, ok, refused, warning
from jobs.submit.check_profile.wording import known_names

SHORT_MINUTES = 60
"""A default limit below this is a warning, if more can be requested: sites mean it for tests."""


def missing(resources: Resources, site: Site, name: str) -> Finding:
    """The finding for a partition that the cluster does not have."""
    return refused(
        "partition",
        requested=_requested(resources, name),
        actual="there is no partition of this name",
        key="partition",
        fix=known_names(name, site.partitions),
    )


def check_state(resources: Resources, partition: Partition) -> Finding:
    """Check that a partition starts jobs."""
    requested, actual = _requested(resources, partition.name), f"{partition.name} is {partition.state or 'known'}"
    if partition.state in ("UP", ""):
        return ok("partition", requested=requested, actual=actual)
    if partition.state == "DOWN":
        fix = "jobs wait until it is UP; or use a different one"
        return warning("partition", requested=requested, actual=actual, key="partition", fix=fix)
    fix = "jobs would be refused: use a different one"
    return refused("partition", requested=requested, actual=actual, key="partition", fix=fix)


def check_access(resources: Resources, site: Site, partition: Partition) -> Iterator[Finding]:
    """Check that the account, the QOS and the user may use a partition."""
    rules = [("qos", qos_of(resources, site), "AllowQos", "DenyQos")]
    if site.associations is not None and "associations" in site.enforced:
        rules.append(("account", account_of(resources, site), "AllowAccounts", "DenyAccounts"))
    for key, value, allow, deny in rules:
        allowed, denied = partition.names(allow), partition.names(deny) or ()
        if value and allowed is not None and value not in allowed:
            actual = f"{partition.name} has {allow}={','.join(allowed)}"
            fix = f"one of {listed(allowed)}, or a different partition"
            yield refused(key, requested=f'"{value}"', actual=actual, key=key, fix=fix)
        elif value and allowed is None and value in denied:
            actual = f"{partition.name} has {deny}={','.join(denied)}"
            yield refused(
                key, requested=f'"{value}"', actual=actual, key=key, fix="a different one, or a different partition"
            )
    yield from _check_user(site, partition)


def check_time(resources: Resources, partition: Partition) -> Finding:
    """Check the time limit of a task against the partition's; without one, say which limit applies."""
    if resources.time is None:
        return _check_default_time(resources, partition)
    limit = minutes_of(partition.get("MaxTime"))
    requested = str(timedelta(minutes=resources.time))
    actual = f"{partition.name} has MaxTime {partition.get('MaxTime') or 'UNLIMITED'}"
    if limit is not None and resources.time > limit:
        return refused("time", requested=requested, actual=actual, key="time", fix=f"at most {limit}")
    return ok("time", requested=requested, actual=actual)


def default_time(partition: Partition) -> tuple[int | None, str]:
    """Minutes of the limit of a job that sets none (None: there is no limit), and the partition's setting."""
    for name in ("DefaultTime", "MaxTime"):
        limit = minutes_of(partition.get(name))
        if limit is not None:
            return limit, name
    return None, "MaxTime"


def default_time_of(resources: Resources, site: Site) -> tuple[int | None, str]:
    """The shortest `default_time` of the partitions that a task may get, and whose it is, for a message."""
    names = site.partition_names(resources.partition)
    found = [(name, *default_time(site.partitions[name])) for name in names if name in site.partitions]
    limits = [(limit, f" ({setting} of {name})") for name, limit, setting in found if limit is not None]
    return min(limits, default=(None, ""))


def _check_default_time(resources: Resources, partition: Partition) -> Finding:
    limit, name = default_time(partition)
    if limit is None:
        return note("time", requested="none", actual="there is no limit")
    actual = f"the limit is {timedelta(minutes=limit)}, {partition.name}'s {name}"
    if limit * 60 <= resources.signal_seconds:
        fix = f"more: Slurm signals a task {resources.signal_seconds} s before its limit"
        return refused("time", requested="none", actual=actual, key="time", fix=fix)
    if limit < min(SHORT_MINUTES, minutes_of(partition.get("MaxTime")) or SHORT_MINUTES):
        fix = "set it: a task that reaches its limit starts again, and loads the model again"
        return warning("time", requested="none", actual=actual, key="time", fix=fix)
    return note("time", requested="none", actual=actual)


def _check_user(site: Site, partition: Partition) -> Iterator[Finding]:
    if site.user == "root":
        return
    requested = f'"{partition.name}"'
    groups = partition.names("AllowGroups")
    if groups is not None and not site.groups & set(groups):
        fix = f"a different partition, or ask for access: {site.user} is in none of these groups"
        actual = f"only for groups {', '.join(groups)}"
        yield refused("partition", requested=requested, actual=actual, key="partition", fix=fix)
    if partition.get("RootOnly") == "YES":
        yield refused(
            "partition", requested=requested, actual="only for root", key="partition", fix="a different partition"
        )


def _requested(resources: Resources, name: str) -> str:
    return f'"{name}"' if resources.partition else "the default"
