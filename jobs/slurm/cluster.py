"""What a cluster says of itself: partitions, nodes, accounts, QOS. Text fields only; what is missing is unknown.

`read_site` asks Slurm, in a few calls; everything else reads text and is pure.
"""

import getpass
import grp
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from embedkit.errors import EmbedkitError, UsageError
from jobs.profiles.values import minutes
from jobs.slurm.client import ask, configuration

Row = Mapping[str, str]
NODE_FORMAT = "%R|%N|%T|%c|%m|%G|%f"
"""sinfo's partition, node, state, CPUs, memory in MB, GRES, features."""
ASSOC_FIELDS = (
    *("Account", "User", "ParentName", "QOS", "DefaultQOS", "MaxSubmit", "GrpSubmit"),
    *("MaxJobs", "GrpJobs", "MaxTRES", "GrpTRES", "MaxWall"),
)
QOS_FIELDS = (
    *("Name", "MaxSubmitPU", "MaxSubmitPA", "GrpSubmit", "MaxJobsPU", "MaxJobsPA", "GrpJobs"),
    *("MaxTRES", "MaxTRESPU", "MaxTRESPA", "GrpTRES", "MaxWall"),
)
NO_NUMBER = ("", "N/A", "NONE", "UNLIMITED", "INFINITE", "(null)", "(NULL)")
GONE = ("down", "drain", "fail", "unk", "inval", "maint")
"""How the states of nodes begin that take no jobs now."""


@dataclass(frozen=True)
class Partition:
    """One partition, its settings by name as `scontrol show partition` has them."""

    name: str
    settings: Row = field(default_factory=dict)

    def get(self, key: str) -> str:
        """A setting; "" if it is not there or says that there is none."""
        value = self.settings.get(key, "")
        return "" if value in NO_NUMBER else value

    def names(self, key: str) -> tuple[str, ...] | None:
        """A list of names; None if it holds for all."""
        value = self.get(key)
        return None if value in ("", "ALL") else tuple(value.split(","))

    @property
    def state(self) -> str:
        """UP, DOWN, DRAIN or INACTIVE; "" if it is not told."""
        return self.get("State")

    @property
    def exclusive(self) -> bool:
        """Whether every job gets whole nodes."""
        return "EXCLUSIVE" in (self.get("OverSubscribe"), self.get("Shared"))


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of a partition. `gpus` are counts by type, "" for GPUs without one; memory is in MB."""

    name: str
    partition: str
    state: str = ""
    cpus: int | None = None
    memory: int | None = None
    gpus: Mapping[str, int] = field(default_factory=dict)
    gres: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()

    @property
    def gpu_count(self) -> int:
        """All its GPUs."""
        return sum(self.gpus.values())

    @property
    def takes_jobs(self) -> bool:
        """Whether it may run something as things stand."""
        return not self.state.lower().startswith(GONE) and not self.state.endswith("*")


@dataclass(frozen=True, kw_only=True)
class Site:
    """The cluster as one user sees it. What could not be asked is None."""

    user: str
    groups: frozenset[str] = frozenset()
    settings: Row = field(default_factory=dict)
    partitions: Mapping[str, Partition] = field(default_factory=dict)
    nodes: Sequence[Node] | None = None
    associations: Sequence[Row] | None = None
    qos: Sequence[Row] | None = None
    default_account: str = ""
    wckeys: frozenset[str] | None = None
    reservations: frozenset[str] | None = None

    @property
    def enforced(self) -> frozenset[str]:
        """What the accounting enforces: associations, limits, qos, wckeys, safe."""
        return frozenset(re.findall(r"\w+", self.settings.get("AccountingStorageEnforce", "").lower()))

    @property
    def default_partition(self) -> str | None:
        """The partition of a job that names none."""
        return next((name for name, one in self.partitions.items() if one.get("Default") == "YES"), None)

    def nodes_of(self, partition: str) -> list[Node]:
        """The nodes of a partition; empty if sinfo did not tell."""
        return [node for node in self.nodes or () if node.partition == partition]


def read_site(user: str, groups: Iterable[str], reservations: bool, wckeys: bool) -> Site:
    """Ask the cluster. Raises EmbedkitError if slurmctld does not answer.

    Args:
        user: who submits.
        groups: names of the user's groups.
        reservations: ask for reservations, too.
        wckeys: ask for the user's wckeys, too.
    """
    settings = configuration()
    where = [f"cluster={settings['ClusterName']}"] if settings.get("ClusterName") else []
    accounting = "slurmdbd" in settings.get("AccountingStorageType", "")
    associations = accounting_rows("assoc", ASSOC_FIELDS, *where) if accounting else None
    keys = accounting_rows("wckey", ("WCKey",), f"user={user}", *where) if accounting and wckeys else None
    return Site(
        user=user,
        groups=frozenset(groups),
        settings=settings,
        partitions=read_partitions(),
        nodes=read_nodes(),
        associations=associations,
        qos=accounting_rows("qos", QOS_FIELDS) if accounting else None,
        default_account=_default_account(user) if accounting else "",
        wckeys=None if keys is None else frozenset(row["WCKey"].lstrip("*") for row in keys),
        reservations=_reservations() if reservations else None,
    )


def read_partitions() -> dict[str, Partition]:
    """All partitions, by name. Raises EmbedkitError."""
    return parse_partitions(ask("scontrol", "show", "partition", "-o"))


def read_nodes() -> list[Node] | None:
    """All nodes, once a partition; None if sinfo does not tell."""
    try:
        return parse_nodes(ask("sinfo", "-h", "-N", "-o", NODE_FORMAT))
    except EmbedkitError:
        return None


def host_names(hosts: str) -> frozenset[str] | None:
    """The names that `n[1-4],n7` stands for; None if Slurm does not take it."""
    if not re.search(r"[\[/]", hosts):
        return frozenset(name for name in hosts.split(",") if name)
    try:
        return frozenset(ask("scontrol", "show", "hostnames", hosts).split())
    except EmbedkitError:
        return None


def accounting_rows(entity: str, fields: Sequence[str], *where: str) -> list[Row] | None:
    """What sacctmgr shows; fields that this version does not know are left out of all rows. None if it fails."""
    wanted = list(fields)
    while wanted:
        try:
            text = ask("sacctmgr", "-n", "-P", "show", entity, *where, f"format={','.join(wanted)}")
        except EmbedkitError as error:
            unknown = re.search(r"[Uu]nknown field '([^']+)'", str(error))
            kept = [name for name in wanted if unknown and name.lower() != unknown[1].lower()]
            if len(kept) in (0, len(wanted)):
                return None
            wanted = kept
        else:
            return parse_rows(text, wanted)
    return None


def parse_rows(text: str, fields: Sequence[str]) -> list[Row]:
    """Read what `sacctmgr -n -P` prints; lines of another number of fields are left out."""
    rows = [line.split("|") for line in text.splitlines()]
    return [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]


def parse_partitions(text: str) -> dict[str, Partition]:
    """Read `scontrol show partition -o`."""
    found = {}
    for line in text.splitlines():
        settings = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))
        if name := settings.get("PartitionName"):
            found[name] = Partition(name, settings)
    return found


def parse_nodes(text: str) -> list[Node]:
    """Read what sinfo prints in NODE_FORMAT; `(null)` and `16+` are understood, other lines left out."""
    nodes = []
    for line in text.splitlines():
        if line.count("|") < 6:
            continue
        partition, name, state, cpus, memory, gres, features = line.split("|", 6)
        nodes.append(
            Node(
                name=name,
                partition=partition.rstrip("*"),
                state=state,
                cpus=_number(cpus),
                memory=_number(memory),
                gpus=gpus_of(gres),
                gres=frozenset(entry.split(":")[0] for entry in _entries(gres)),
                features=frozenset() if features in NO_NUMBER else frozenset(features.split(",")),
            )
        )
    return nodes


def gpus_of(gres: str) -> dict[str, int]:
    """GPUs by type in a GRES list: `gpu:h100:8(S:0-1),lscratch:900` has {"h100": 8}; "" for those without a type."""
    found: dict[str, int] = {}
    for entry in _entries(gres):
        kind, *rest = entry.split(":")
        if kind != "gpu":
            continue
        count = int(rest.pop()) if rest and rest[-1].isdecimal() else 1
        name = rest[0] if rest else ""
        found[name] = found.get(name, 0) + count
    return found


def tres_of(text: str) -> dict[str, int]:
    """Amounts by name of `cpu=64,gres/gpu=8,mem=500G`; memory in MB, what is no number left out."""
    found: dict[str, int] = {}
    for name, number, unit in re.findall(r"([\w/:.-]+)=(\d+(?:\.\d+)?)([KMGTP]?)", text):
        scale = 1024 ** ("MGTP".index(unit)) if unit in tuple("MGTP") else 1 / 1024 if unit else 1
        found[name] = int(float(number) * scale)
    return found


def minutes_of(text: str) -> int | None:
    """Minutes of a time limit as Slurm prints it; None for none."""
    if text in NO_NUMBER:
        return None
    try:
        return minutes(text)
    except UsageError:
        return None


def listed(names: Iterable[str]) -> str:
    """Names for a person, sorted, at most twelve."""
    found = sorted(set(names))
    more = f" and {len(found) - 12} more" if len(found) > 12 else ""
    return ", ".join(found[:12]) + more


def this_user() -> tuple[str, frozenset[str]]:
    """Name and groups of who types."""
    names = set()
    for number in {*os.getgroups(), os.getegid()}:
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return getpass.getuser(), frozenset(names)


def _entries(gres: str) -> list[str]:
    """Entries of a GRES list without sockets and indices, which have commas of their own."""
    bare = re.sub(r"\([^)]*\)", "", gres)
    return [entry for entry in bare.split(",") if entry]


def _number(text: str) -> int | None:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else None


def _reservations() -> frozenset[str] | None:
    try:
        return frozenset(re.findall(r"^ReservationName=(\S+)", ask("scontrol", "show", "reservation", "-o"), re.M))
    except EmbedkitError:
        return None


def _default_account(user: str) -> str:
    rows = accounting_rows("user", ("DefaultAccount",), user) or []
    return rows[0]["DefaultAccount"] if rows else ""
