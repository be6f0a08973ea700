"""`embedkit profile check`: what a profile asks for against what the cluster has, stage by stage, a finding a line.

The checks are pure functions of a Site. The last word is Slurm's: `sbatch --test-only` with the script of each stage.
"""

import difflib
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import msgspec

from embedkit.errors import EmbedkitError, UsageError
from embedkit.run import RunFolder
from jobs.profiles.values import STAGES, Profile, Resources, Stage
from jobs.slurm.client import TIMEOUT_SECONDS, own_environment, require_slurm
from jobs.slurm.cluster import (
    Node,
    Partition,
    Row,
    Site,
    host_names,
    listed,
    minutes_of,
    read_nodes,
    read_partitions,
    read_site,
    this_user,
    tres_of,
)
from jobs.submit.chain import ChainJob
from jobs.submit.sbatch import script

OTHER_JOBS = 3
"""prepare, preflight and merge, beside the shards."""
Level = Literal["ok", "note", "warning", "refused"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `mend` is what to write into the profile, "" where nothing has to change."""

    stage: Stage
    level: Level
    what: str
    asked: str
    found: str
    mend: str = ""

    @property
    def line(self) -> str:
        """For a person."""
        asked = f"{self.asked}: " if self.asked else ""
        mend = f"; {self.mend}" if self.mend else ""
        return f"{self.stage:<10}{self.level:<9}{self.what:<12}{asked}{self.found}{mend}"


class SiteReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `profile check` found."""

    profile: str
    ok: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Said:
    """A finding before it has its stage. `key` is the profile's, in whose table the mend belongs."""

    level: Level
    what: str
    asked: str
    found: str
    key: str = ""
    mend: str = ""


def check_profile(profile: Profile) -> SiteReport:
    """Check every stage against the cluster that answers here. Raises EmbedkitError if there is none."""
    require_slurm()
    stages = profile.stages.values()
    user, groups = this_user()
    site = read_site(
        *(user, groups),
        reservations=any(one.reservation for one in stages),
        wckeys=any(one.wckey for one in stages),
    )
    hosts = {text: host_names(text) for one in stages for text in (one.nodelist, one.exclude) if text}
    tables = _tables(profile.path)
    findings: list[Finding] = []
    for stage in STAGES:
        said = [*check_stage(stage, profile.stages[stage], site, hosts), _tested(profile, stage)]
        findings += [_finding(stage, one, tables) for one in said]
    refused = any(finding.level == "refused" for finding in findings)
    return SiteReport(profile=str(profile.path), ok=not refused, findings=tuple(findings))


def check_stage(
    stage: Stage, asked: Resources, site: Site, hosts: Mapping[str, frozenset[str] | None]
) -> Iterator[Said]:
    """What there is to say of one stage; `hosts` are the names that its nodelist and exclude stand for.

    Of several partitions a job takes the first that will: what only one refuses is a warning.
    """
    names = [name for name in (asked.partition or site.default_partition or "").split(",") if name]
    if not names:
        yield Said(
            "refused", "partition", "none", "the cluster has no default partition", "partition", 'set it: "NAME"'
        )
    by_partition = [list(_in_partition(stage, asked, site, name, hosts)) for name in names]
    fits = any(all(said.level != "refused" for said in one) for one in by_partition)
    for one in by_partition:
        yield from (replace(said, level="warning") if fits and said.level == "refused" else said for said in one)
    yield from _account(asked, site)
    yield from _wckey(asked, site)
    yield from _reservation(asked, site)
    yield from _per_job(stage, asked, site, names)
    if stage == "embed":
        yield _shards(asked, site, names)
        yield from _at_once(asked, site, names)


def idle_gpus(asked: Resources, partition: Partition, nodes: Sequence[Node]) -> str | None:
    """Why a task of these resources would leave GPUs idle: it gets whole nodes that have more; None if it does not."""
    if not asked.gpu_count or not (asked.exclusive or partition.exclusive):
        return None
    counts = sorted({node.gpu_count for node in nodes if node.gpu_count})
    if not counts or counts[0] <= asked.gpu_count:
        return None
    whole = (
        f"partition {partition.name} gives whole nodes" if partition.exclusive else "exclusive = true takes them whole"
    )
    has = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"nodes have {has} GPUs and {whole}, so {counts[0] - asked.gpu_count} of {counts[0]} GPUs would idle in every "
        f"task of {asked.gpu_count}"
    )


def share_node(nodes: Sequence[Node]) -> str:
    """The setting that makes one allocation feed all GPUs of a node."""
    gpus = min((node.gpu_count for node in nodes if node.gpu_count), default=1)
    one = f"gpus_per_job = {gpus} with gpus = {gpus} makes one allocation feed {gpus} workers"
    return f"{one}; or ask for a partition of shared nodes"


def refuse_idle_gpus(asked: Resources) -> None:
    """Raise UsageError if a shard's task would get a whole node and use some of its GPUs only.

    Says nothing where the cluster does not tell: it is a matter of waste, not of numbers.
    """
    if not asked.gpu_count:
        return
    try:
        partitions = read_partitions()
        default = next((name for name, one in partitions.items() if one.get("Default") == "YES"), "")
        named = [partitions[name] for name in (asked.partition or default).split(",") if name in partitions]
        if not any(asked.exclusive or one.exclusive for one in named):
            return
        nodes = read_nodes() or []
        hosts = {text: host_names(text) for text in (asked.nodelist, asked.exclude) if text}
    except EmbedkitError:
        return
    for partition in named:
        there = _eligible(asked, [node for node in nodes if node.partition == partition.name], hosts)
        problem = idle_gpus(asked, partition, there)
        if problem is not None:
            raise UsageError(f"[embed]: {problem}; {share_node(there)}. `embedkit profile check` says more")


# One partition


def _in_partition(
    stage: Stage, asked: Resources, site: Site, name: str, hosts: Mapping[str, frozenset[str] | None]
) -> Iterator[Said]:
    wanted = f'"{name}"' if asked.partition else "the default"
    partition = site.partitions.get(name)
    if partition is None:
        yield Said(
            "refused", "partition", wanted, "there is none of that name", "partition", _one_of(name, site.partitions)
        )
        return
    up = partition.state in ("UP", "")
    yield Said(
        *("ok" if up else "refused", "partition", wanted, f"{name} is {partition.state or 'there'}", "partition"),
        "" if up else "jobs would not start: ask for another, or wait until it is UP",
    )
    yield from _allowed(asked, site, partition)
    yield from _time(asked, site, partition)
    nodes = site.nodes_of(name)
    if not nodes:
        yield Said("note", "nodes", "", f"sinfo shows no nodes of {name}; sbatch has the last word")
        return
    yield from _nodes(asked, partition, nodes, site, hosts)
    eligible = _eligible(asked, nodes, hosts)
    waste = idle_gpus(asked, partition, eligible)
    if waste is not None:
        level: Level = "refused" if stage == "embed" else "note"
        yield Said(level, "exclusive", f"gpus = {asked.gpu_count}", waste, "gpus_per_job", share_node(eligible))
    elif asked.exclusive or partition.exclusive:
        yield Said("ok", "exclusive", "", f"tasks get whole nodes of {name}")
    if stage == "embed" and eligible:
        yield from _filled(asked, partition, eligible)


def _allowed(asked: Resources, site: Site, partition: Partition) -> Iterator[Said]:
    """Whether account, QOS and group may use a partition."""
    account, qos = asked.account or site.default_account, _qos_of(asked, site)
    rules = [("qos", qos, "AllowQos", "DenyQos")]
    if site.associations is not None and "associations" in site.enforced:
        rules.append(("account", account, "AllowAccounts", "DenyAccounts"))
    for key, value, allow, deny in rules:
        allowed, denied = partition.names(allow), partition.names(deny) or ()
        if value and allowed is not None and value not in allowed:
            yield Said(
                *("refused", key, f'"{value}"', f"{partition.name} has {allow}={','.join(allowed)}", key),
                f"one of {listed(allowed)}, or another partition",
            )
        elif value and allowed is None and value in denied:
            yield Said(
                *("refused", key, f'"{value}"', f"{partition.name} has {deny}={','.join(denied)}", key),
                "another one, or another partition",
            )
    groups = partition.names("AllowGroups")
    if groups is not None and site.user != "root" and not site.groups & set(groups):
        yield Said(
            *("refused", "partition", f'"{partition.name}"', f"only for groups {', '.join(groups)}", "partition"),
            f"you ({site.user}) are in none of them: another partition, or ask to be let in",
        )
    if partition.get("RootOnly") == "YES" and site.user != "root":
        yield Said("refused", "partition", f'"{partition.name}"', "only for root", "partition", "another partition")


def _time(asked: Resources, site: Site, partition: Partition) -> Iterator[Said]:
    limit, default = minutes_of(partition.get("MaxTime")), minutes_of(partition.get("DefaultTime"))
    most = f"{partition.name} has MaxTime {partition.get('MaxTime') or 'UNLIMITED'}"
    if asked.time is None:
        given = default if default is not None else limit
        named = "DefaultTime" if default is not None else "MaxTime"
        will = "no limit" if given is None else f"{_clock(given)}, {partition.name}'s {named}"
        short = given is not None and given * 60 <= asked.signal_seconds
        yield Said(
            *("refused" if short else "note", "time", "none", f"it will be {will}", "time"),
            f"a task is told {asked.signal_seconds} s before: set more" if short else "",
        )
    elif limit is not None and asked.time > limit:
        yield Said("refused", "time", _clock(asked.time), most, "time", f"{limit} at most")
    else:
        yield Said("ok", "time", _clock(asked.time), most)


def _nodes(
    asked: Resources,
    partition: Partition,
    nodes: Sequence[Node],
    site: Site,
    hosts: Mapping[str, frozenset[str] | None],
) -> Iterator[Said]:
    """What of a task's wishes no node of the partition has, and how many nodes have it all."""
    known = {node.name for node in site.nodes or ()}
    refused = False
    for said in (
        *_named_nodes(asked, partition, nodes, known, hosts),
        *_features(asked, partition, nodes),
        *_gpus(asked, partition, nodes, site),
        *_sizes(asked, partition, nodes, site),
    ):
        refused |= said.level == "refused"
        yield said
    if refused:
        return
    fitting = [node for node in _eligible(asked, nodes, hosts) if _fits(asked, partition, node, site)]
    working = sum(node.takes_jobs for node in fitting)
    if not fitting:
        yield Said(
            *("refused", "nodes", _wishes(asked), f"no node of {partition.name} has all of it at once", "cpus"),
            "less of cpus, mem or gpus, or another constraint",
        )
    elif not working:
        states = listed(node.state for node in fitting)
        yield Said("warning", "nodes", _wishes(asked), f"{len(fitting)} of {partition.name} fit, all of them {states}")
    else:
        fit = f"{len(fitting)} of {len(nodes)} nodes of {partition.name} fit"
        yield Said(
            "ok", "nodes", _wishes(asked), fit + (f", {working} take jobs now" if working < len(fitting) else "")
        )


def _named_nodes(
    asked: Resources,
    partition: Partition,
    nodes: Sequence[Node],
    known: set[str],
    hosts: Mapping[str, frozenset[str] | None],
) -> Iterator[Said]:
    there = {node.name for node in nodes}
    for key, text in (("nodelist", asked.nodelist), ("exclude", asked.exclude)):
        if not text:
            continue
        names = hosts.get(text)
        if names is None:
            yield Said("refused", key, f'"{text}"', "Slurm reads no names of nodes in it", key, 'as in "n[1-4],n7"')
        elif unknown := names - known:
            yield Said(
                "refused", key, f'"{text}"', f"no such nodes: {listed(unknown)}", key, f"nodes are {listed(known)}"
            )
        elif key == "nodelist" and (others := names - there):
            # Slurm wants all of a nodelist, and a task is one node.
            yield Said(
                *("refused", key, f'"{text}"', f"{listed(others)} not in {partition.name}", key),
                f"of {listed(there)}",
            )
        elif key == "exclude" and not there - names:
            yield Said("refused", key, f'"{text}"', f"these are all nodes of {partition.name}", key, "fewer")
        if key == "nodelist" and names and len(names) > 1:
            yield Said(
                *(
                    "refused",
                    key,
                    f'"{text}"',
                    f"Slurm wants all {len(names)} of them for each task, which is one node",
                ),
                *(key, "one node, or exclude those that are not wanted, or a constraint"),
            )


def _features(asked: Resources, partition: Partition, nodes: Sequence[Node]) -> Iterator[Said]:
    if not asked.constraint:
        return
    known = {feature for node in nodes for feature in node.features}
    unknown = _feature_names(asked.constraint) - known
    shown = f'"{asked.constraint}"'
    if unknown:
        has = listed(known) if known else "none"
        yield Said(
            *("refused", "constraint", shown, f"no node of {partition.name} has {listed(unknown)}", "constraint"),
            f"features there: {has}",
        )
    elif not any(_has_features(asked.constraint, node) for node in nodes):
        yield Said(
            "refused", "constraint", shown, f"no node of {partition.name} has them together", "constraint", "fewer"
        )


def _gpus(asked: Resources, partition: Partition, nodes: Sequence[Node], site: Site) -> Iterator[Said]:
    """Count and type of GPUs, and other generic resources."""
    types = {kind for node in nodes for kind in node.gpus}
    with_gpus = {node.partition for node in site.nodes or () if node.gpus}
    key, shown = ("gpus", f"gpus = {asked.gpus}") if asked.gpus else ("gres", f'"{asked.gres}"')
    for kind, count in _asked_gpus(asked):
        most = max((node.gpus.get(kind, 0) if kind else node.gpu_count for node in nodes), default=0)
        if not types:
            others = f"of {listed(with_gpus)}" if with_gpus else "no partition has any"
            yield Said("refused", "gpus", shown, f"{partition.name} has no GPUs", "partition", others)
        elif kind and kind not in types:
            named = " or ".join(f'"gpu:{name}:{count}"' for name in sorted(types) if name) or f'"gpu:{count}"'
            yield Said("refused", "gpus", shown, f"{partition.name} has no GPUs of type {kind}", key, f"gres = {named}")
        elif most < count:
            yield Said(
                "refused", "gpus", shown, f"nodes of {partition.name} have {most} at most", key, f"{most} at most"
            )
        elif not kind and len(types) > 1:
            each = " or ".join(f'"gpu:{name}:{count}"' for name in sorted(types) if name)
            yield Said(
                *(
                    "warning",
                    "gpus",
                    shown,
                    f"{partition.name} has {listed(types)}: shards of different GPUs are not merged",
                ),
                *("gres", each),
            )
    for name in _other_gres(asked) - {name for node in nodes for name in node.gres}:
        yield Said(
            "refused", "gres", f'"{asked.gres}"', f"no node of {partition.name} has {name}", "gres", "leave it out"
        )


def _sizes(asked: Resources, partition: Partition, nodes: Sequence[Node], site: Site) -> Iterator[Said]:
    """CPUs and memory against the largest node and the limits a node and a CPU."""
    most_cpus = max((node.cpus for node in nodes if node.cpus is not None), default=None)
    per_node = _plain_number(partition.get("MaxCPUsPerNode"))
    for most, named in ((most_cpus, "nodes have"), (per_node, "MaxCPUsPerNode is")):
        if asked.cpus is not None and most is not None and asked.cpus > most:
            yield Said(
                *("refused", "cpus", str(asked.cpus), f"{named} {most} at most in {partition.name}", "cpus"),
                f"{most} at most",
            )
            break
    memory = max((node.memory for node in nodes if node.memory is not None), default=None)
    limit = _memory_limit("MaxMemPerNode", partition, site)
    for most, named in ((memory, "the largest node has"), (limit, "MaxMemPerNode is")):
        if asked.mem and most is not None and asked.mem > most:
            yield Said(
                *("refused", "mem", f"{asked.mem} MB", f"{named} {most} MB in {partition.name}", "mem"),
                f"{most} at most",
            )
            break
    a_cpu = _memory_limit("MaxMemPerCPU", partition, site)
    if asked.mem and a_cpu and -(-asked.mem // a_cpu) > (asked.cpus or 1):
        wanted = -(-asked.mem // a_cpu)
        too_many = most_cpus is not None and wanted > most_cpus
        yield Said(
            *("refused" if too_many else "warning", "mem", f"{asked.mem} MB", f"MaxMemPerCPU is {a_cpu} MB"),
            *("mem", f"Slurm takes {wanted} CPUs for it: {(asked.cpus or 1) * a_cpu} at most, or cpus = {wanted}"),
        )
    if asked.mem is None:
        default = next(
            (
                f"{key} {value} MB"
                for key in ("DefMemPerNode", "DefMemPerCPU")
                if (value := _memory_limit(key, partition, site))
            ),
            "all of the node's",
        )
        yield Said("note", "mem", "none", f"it will be {default}")


def _filled(asked: Resources, partition: Partition, nodes: Sequence[Node]) -> Iterator[Said]:
    """Whether tasks of so many CPUs and so much memory can fill a node's GPUs."""
    if not asked.gpu_count or asked.exclusive or partition.exclusive or asked.mem == 0:
        return
    node = max(nodes, key=lambda one: one.gpu_count)
    tasks = node.gpu_count // asked.gpu_count
    for key, each, has in (("cpus", asked.cpus or 1, node.cpus), ("mem", asked.mem or 0, node.memory)):
        if tasks > 1 and each and has is not None and 0 < has // each < tasks:
            yield Said(
                *("note", key, str(each), f"a node of {node.gpu_count} GPUs has {has}, enough for {has // each} tasks"),
                *(key, f"{has // tasks} lets {tasks} tasks fill it"),
            )


# Accounting


def _account(asked: Resources, site: Site) -> Iterator[Said]:
    if site.associations is None:
        shown = f'"{asked.account}"' if asked.account else "none"
        yield Said("ok", "account", shown, "there is no accounting that would ask for one, or it does not answer")
        return
    mine = sorted({row.get("Account", "") for row in site.associations if row.get("User") == site.user})
    account = asked.account or site.default_account
    strict: Level = "refused" if "associations" in site.enforced else "warning"
    if not asked.account and not account:
        yield Said(
            strict, "account", "none", f"{site.user} has no default account", "account", f"one of {listed(mine)}"
        )
    elif account not in mine:
        known = {row.get("Account", "") for row in site.associations}
        what = f"{site.user} is not in it" if account in known else "there is no such account"
        yield Said(
            strict, "account", f'"{account}"', what, "account", f"one of {listed(mine)}" if mine else "ask for one"
        )
    else:
        yield Said("ok", "account", f'"{account}"' if asked.account else "none", f"{account} is {site.user}'s")
    if not asked.qos or site.qos is None:
        return
    names = {row.get("Name", "") for row in site.qos}
    allowed = {name for row in _assoc_rows(asked, site)[:1] for name in row.get("QOS", "").split(",") if name}
    if asked.qos not in names:
        yield Said("refused", "qos", f'"{asked.qos}"', "there is no such QOS", "qos", _one_of(asked.qos, sorted(names)))
    elif allowed and asked.qos not in {name.lstrip("+-") for name in allowed}:
        yield Said("refused", "qos", f'"{asked.qos}"', f"not {account}'s", "qos", f"one of {listed(allowed)}")
    else:
        yield Said("ok", "qos", f'"{asked.qos}"', "it may be used")


def _wckey(asked: Resources, site: Site) -> Iterator[Said]:
    tracked = site.settings.get("TrackWCKey", "").lower() in ("yes", "1")
    enforced = "wckeys" in site.enforced
    if asked.wckey and site.wckeys is not None and tracked and asked.wckey not in site.wckeys:
        level: Level = "refused" if enforced else "warning"
        yield Said(
            level, "wckey", f'"{asked.wckey}"', f"not one of {site.user}'s", "wckey", _one_of(asked.wckey, site.wckeys)
        )
    elif asked.wckey and not tracked:
        yield Said("note", "wckey", f'"{asked.wckey}"', "this cluster keeps none (TrackWCKey)", "wckey", "leave it out")
    elif enforced and not asked.wckey:
        yield Said(
            "warning", "wckey", "none", "this cluster wants one (AccountingStorageEnforce)", "wckey", "set yours"
        )


def _reservation(asked: Resources, site: Site) -> Iterator[Said]:
    if asked.reservation and site.reservations is not None:
        known = asked.reservation in site.reservations
        yield Said(
            *("ok" if known else "refused", "reservation", f'"{asked.reservation}"'),
            *("it is there" if known else "there is none of that name", "reservation"),
            "" if known else _one_of(asked.reservation, site.reservations),
        )


def _per_job(stage: Stage, asked: Resources, site: Site, partitions: Sequence[str]) -> Iterator[Said]:
    """MaxWall and MaxTRES: what no job may ask for more of."""
    if "limits" not in site.enforced:
        return
    for name, row in _limit_rows(asked, site, partitions):
        wall = minutes_of(row.get("MaxWall", ""))
        if wall is not None and asked.time is not None and asked.time > wall:
            yield Said(
                "refused", "time", _clock(asked.time), f"{name} has MaxWall {row['MaxWall']}", "time", f"{wall} at most"
            )
        for field in ("MaxTRES", "MaxTRESPU", "MaxTRESPA", "GrpTRES"):
            limits = tres_of(row.get(field, ""))
            for tres, key, amount in _amounts(asked):
                if amount > limits.get(tres, amount):
                    yield Said(
                        *("refused", key, f"{amount}", f"{name} has {field} {tres}={limits[tres]}", key),
                        f"{limits[tres]} at most",
                    )


def _shards(asked: Resources, site: Site, partitions: Sequence[str]) -> Said:
    """The largest number of shards that can be submitted."""
    limits = [
        ("MaxArraySize", _plain_number(site.settings.get("MaxArraySize", "")) or 1001),
        ("MaxJobCount", (_plain_number(site.settings.get("MaxJobCount", "")) or 10_000) - OTHER_JOBS),
    ]
    for name, row in _limit_rows(asked, site, partitions) if "limits" in site.enforced else ():
        for field in ("MaxSubmit", "GrpSubmit", "MaxSubmitPU", "MaxSubmitPA"):
            most = _plain_number(row.get(field, ""))
            if most is not None:
                limits.append((f"{field} {most} of {name}", max(most - OTHER_JOBS, 0)))
    name, most = min(limits, key=lambda limit: limit[1])
    return Said(
        *("ok" if most else "refused", "shards", "", f"{most} at most, with nothing else queued ({name})", "account"),
        "" if most else "another account or QOS",
    )


def _at_once(asked: Resources, site: Site, partitions: Sequence[str]) -> Iterator[Said]:
    """How many shards the account's and the QOS' limits let run at once."""
    if "limits" not in site.enforced:
        return
    found: list[tuple[int, str]] = []
    for name, row in _limit_rows(asked, site, partitions):
        for field in ("MaxJobs", "GrpJobs", "MaxJobsPU", "MaxJobsPA"):
            most = _plain_number(row.get(field, ""))
            if most is not None:
                found.append((most, f"{field} {most} of {name}"))
        for field in ("MaxTRESPU", "MaxTRESPA", "GrpTRES"):
            limits = tres_of(row.get(field, ""))
            found += [
                (limits[tres] // amount, f"{field} {tres}={limits[tres]} of {name}")
                for tres, _, amount in _amounts(asked)
                if tres in limits
            ]
    if found:
        most, why = min(found)
        yield Said(
            *(
                "note" if most else "refused",
                "at once",
                "",
                f"{most} shards at most ({why}); --num-gpus above it gains nothing",
            )
        )


def _limit_rows(asked: Resources, site: Site, partitions: Sequence[str]) -> list[tuple[str, Row]]:
    """The associations above and of a job, its QOS and its partitions' QOS, with names for a person."""
    rows = [
        (f"account {row['Account']}" + (f", user {row['User']}" if row.get("User") else ""), row)
        for row in _assoc_rows(asked, site)
    ]
    own = [site.partitions[name].get("QoS") for name in partitions if name in site.partitions]
    names = dict.fromkeys(name for name in (_qos_of(asked, site), *own) if name)
    by_name = {row.get("Name", ""): row for row in site.qos or ()}
    return rows + [(f"QOS {name}", by_name[name]) for name in names if name in by_name]


def _assoc_rows(asked: Resources, site: Site) -> list[Row]:
    """The user's association in the account, then the account's and those above it."""
    account = asked.account or site.default_account
    rows = list(site.associations or ())
    found = [row for row in rows if row.get("Account") == account and row.get("User") == site.user][:1]
    above = {row.get("Account", ""): row for row in rows if not row.get("User")}
    seen: set[str] = set()
    while account in above and account not in seen:
        seen.add(account)
        found.append(above[account])
        account = above[account].get("ParentName", "")
    return found


def _qos_of(asked: Resources, site: Site) -> str:
    if asked.qos or site.qos is None:
        return asked.qos or ""
    rows = _assoc_rows(asked, site)
    return next((name for row in rows if (name := row.get("DefaultQOS", ""))), "normal")


def _amounts(asked: Resources) -> list[tuple[str, str, int]]:
    """What a task asks for: TRES, key of the profile, amount (memory in MB)."""
    wanted = [("gres/gpu", "gpus", asked.gpu_count), ("cpu", "cpus", asked.cpus or 1), ("mem", "mem", asked.mem or 0)]
    return [(tres, key, amount) for tres, key, amount in (*wanted, ("node", "partition", 1)) if amount]


# Nodes


def _eligible(asked: Resources, nodes: Sequence[Node], hosts: Mapping[str, frozenset[str] | None]) -> list[Node]:
    """Nodes that nodelist, exclude and constraint leave, and that have GPUs of the type that is asked for."""
    only, without = hosts.get(asked.nodelist or ""), hosts.get(asked.exclude or "") or frozenset()
    kinds = {kind for kind, _ in _asked_gpus(asked) if kind}
    return [
        node
        for node in nodes
        if (only is None or node.name in only)
        and node.name not in without
        and (not asked.constraint or _has_features(asked.constraint, node))
        and kinds <= node.gpus.keys()
    ]


def _fits(asked: Resources, partition: Partition, node: Node, site: Site) -> bool:
    has = all((node.gpus.get(kind, 0) if kind else node.gpu_count) >= count for kind, count in _asked_gpus(asked))
    cpus = node.cpus is None or (asked.cpus or 1) <= node.cpus
    memory = node.memory is None or (asked.mem or 0) <= node.memory
    return has and cpus and memory and _other_gres(asked) <= node.gres


def _asked_gpus(asked: Resources) -> list[tuple[str, int]]:
    """Type ("" for any) and count of the GPUs of a task."""
    if asked.gpus is not None:
        return [("", asked.gpus)] if asked.gpus else []
    found = []
    for entry in (asked.gres or "").split(","):
        kind, *rest = entry.split(":")
        if kind == "gpu":
            count = int(rest.pop()) if rest and rest[-1].isdecimal() else 1
            found.append((rest[0] if rest else "", count))
    return [(kind, count) for kind, count in found if count]


def _other_gres(asked: Resources) -> set[str]:
    names = {re.split(r"[:=]", entry)[0].removeprefix("gres/") for entry in (asked.gres or "").split(",")}
    return names - {"", "gpu", "none"}


def _feature_names(constraint: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_][\w.:-]*", constraint))


def _has_features(constraint: str, node: Node) -> bool:
    """Whether a node has what `a&b`, `a|b` ask for; of what is less simple, any of the names."""
    names = _feature_names(constraint)
    return names <= node.features if not re.search(r"[|\[(*]", constraint) else bool(names & node.features)


def _memory_limit(key: str, partition: Partition, site: Site) -> int | None:
    """MB of a limit or default, the partition's before the cluster's; each is a CPU's or a node's."""
    kinds = (key, key.replace("PerNode", "PerCPU") if "PerNode" in key else key.replace("PerCPU", "PerNode"))
    if any(partition.get(kind) for kind in kinds):
        return _plain_number(partition.get(key))
    return _plain_number(site.settings.get(key, ""))


def _plain_number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _wishes(asked: Resources) -> str:
    parts = [f"{asked.cpus or 1} CPUs", f"{asked.mem} MB" if asked.mem else ""]
    parts.append(f"{asked.gpu_count} GPU" if asked.gpu_count else "")
    return ", ".join(part for part in parts if part)


def _one_of(name: str, known: Sequence[str] | Mapping[str, object] | frozenset[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    guess = f'did you mean "{near[0]}"? ' if near else ""
    return guess + (f"there are {listed(known)}" if known else "there are none")


def _clock(total: int) -> str:
    return str(timedelta(minutes=total))


# The last word


def _tested(profile: Profile, stage: Stage) -> Said:
    """What sbatch itself says of the stage's script; nothing is submitted, and nothing is waited for."""
    indices = (0,) if stage == "embed" else None
    text = script(RunFolder(Path.cwd() / "output" / "check"), profile, ChainJob(stage, indices=indices, parallel=1))
    with tempfile.TemporaryDirectory() as folder, own_environment():
        path = Path(folder) / f"{stage}.sh"
        path.write_text(text)
        command = ("sbatch", "--test-only", str(path))
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return Said("warning", "sbatch", "--test-only", f"no answer in {TIMEOUT_SECONDS} s")
    return parse_tested(done.returncode, done.stdout + done.stderr)


def parse_tested(code: int, text: str) -> Said:
    """Read what `sbatch --test-only` says: when and where it would start, or why it is refused."""
    lines = [re.sub(r"^sbatch: (error: )?", "", line).strip() for line in text.splitlines()]
    starts = next((line for line in lines if re.search(r"\bto start at\b", line)), None)
    if code == 0 and starts is not None:
        return Said("ok", "sbatch", "--test-only", re.sub(r"^Job \d+ ", "", starts))
    said = "; ".join(line for line in lines if line)
    if code == 0:
        return Said("note", "sbatch", "--test-only", said or "it said nothing, and would take it")
    return Said("refused", "sbatch", "--test-only", said or f"it exited {code}")


def _finding(stage: Stage, said: Said, tables: Mapping[str, Mapping[str, object]]) -> Finding:
    mend = f"{_table_of(stage, said.key, tables)} {said.key}: {said.mend}" if said.key and said.mend else said.mend
    return Finding(stage=stage, level=said.level, what=said.what, asked=said.asked, found=said.found, mend=mend)


def _table_of(stage: Stage, key: str, tables: Mapping[str, Mapping[str, object]]) -> str:
    """The table of the file that a stage has a key from; its own where the key is not there yet."""
    own = [stage, "embed"] if stage == "preflight" and key != "time" else [stage]
    found = next((name for name in (*own, "all") if key in tables.get(name, {})), own[-1])
    return f"[{found}]"


def _tables(path: Path) -> Mapping[str, Mapping[str, object]]:
    """The file's tables as they are written; the profile was read from it a moment before."""
    found: Mapping[str, Mapping[str, object]] = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    return found
