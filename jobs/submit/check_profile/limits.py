"""Check the limits of accounts and QOS: the size of a job, the number of shards, and how many run at once."""

from collections.abc import Iterator
from datetime import timedelta

from jobs.gres import tres_amounts
from jobs.profiles import Resources
from jobs.slurm import Site, minutes_of
from jobs.submit.accepted_shards import accepted_shards
from jobs.submit.account_limits import RUNNING_FIELDS, limit_rows
from jobs.submit.check_profile.finding import Finding, note, ok, refused

OTHER_JOBS = 3
"""prepare, preflight and merge, beside the shards."""


def check_job_limits(resources: Resources, site: Site) -> Iterator[Finding]:
    """Check one task against MaxWall and the limits on TRES."""
    for limit in limit_rows(resources, site):
        wall = minutes_of(limit.get("MaxWall"))
        if wall is not None and resources.time is not None and resources.time > wall:
            actual = f"{limit.name} has MaxWall {limit.get('MaxWall')}"
            requested = str(timedelta(minutes=resources.time))
            yield refused("time", requested=requested, actual=actual, key="time", fix=f"at most {wall}")
        for field in ("MaxTRES", "MaxTRESPU", "MaxTRESPA", "GrpTRES"):
            amounts = tres_amounts(limit.get(field))
            for tres, key, amount in _amounts(resources):
                if tres in amounts and amount > amounts[tres]:
                    actual = f"{limit.name} has {field} {tres}={amounts[tres]}"
                    yield refused(key, requested=f"{amount}", actual=actual, key=key, fix=f"at most {amounts[tres]}")


def check_shards(resources: Resources, site: Site) -> Finding:
    """Say how many shards can be submitted at most."""
    limit = accepted_shards(resources, site, (), OTHER_JOBS)
    why = "MaxArraySize" if limit.tasks is None else f"{limit.name} is {limit.most}"
    actual = f"at most {limit.shards}, with nothing else queued ({why})"
    if not limit.shards:
        return refused("shards", actual=actual, key="account", fix="a different account or QOS")
    return ok("shards", actual=actual)


def check_running_shards(resources: Resources, site: Site) -> Iterator[Finding]:
    """Say how many shards can run at once at most; nothing if no limit is set."""
    limit = running_limit(resources, site)
    if limit is not None:
        shards, why = limit
        level = note if shards else refused
        yield level("at once", actual=f"at most {shards} shards ({why}); a higher --num-gpus gains nothing")


def running_limit(resources: Resources, site: Site) -> tuple[int, str] | None:
    """How many shards can run at once at most, and by which limit; None if no limit is set."""
    limits: list[tuple[int, str]] = []
    for limit in limit_rows(resources, site):
        limits += [(most, f"{field} {most} of {limit.name}") for field, most in limit.numbers(RUNNING_FIELDS)]
        for field in ("MaxTRESPU", "MaxTRESPA", "GrpTRES"):
            amounts = tres_amounts(limit.get(field))
            limits += [
                (amounts[tres] // amount, f"{field} {tres}={amounts[tres]} of {limit.name}")
                for tres, _, amount in _amounts(resources)
                if tres in amounts
            ]
    tasks, why = min(limits, default=(0, ""))
    return (tasks * resources.gpus_per_job, why) if limits else None


def _amounts(resources: Resources) -> list[tuple[str, str, int]]:
    """What a task requests: TRES, key of the profile, amount (memory in MB)."""
    amounts = (
        ("gres/gpu", "gpus", resources.gpu_count),
        ("cpu", "cpus", resources.cpus or 1),
        ("mem", "mem", resources.mem or 0),
        ("node", "partition", 1),
    )
    return [(tres, key, amount) for tres, key, amount in amounts if amount]
