"""A cluster as Slurm describes it: partitions, nodes, accounts and QOS, and the parsers of that text.

Everything here is pure; `jobs.slurm.read_cluster` runs the commands. A missing field is unknown, not an error.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from embedkit.errors import UsageError
from jobs.gres import gpus_in_gres, gres_names
from jobs.profiles import minutes

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
NO_VALUE = ("", "N/A", "NONE", "UNLIMITED", "INFINITE", "(null)", "(NULL)")
UNAVAILABLE = ("down", "drain", "fail", "unk", "inval", "maint")
"""How the states of nodes begin that take no jobs now."""


@dataclass(frozen=True)
class Partition:
    """One partition; its settings by name, as `scontrol show partition` prints them."""

    name: str
    settings: Row = field(default_factory=dict)

    def get(self, key: str) -> str:
        """A setting; "" if it is missing or says that there is none."""
        value = self.settings.get(key, "")
        return "" if value in NO_VALUE else value

    def names(self, key: str) -> tuple[str, ...] | None:
        """A list of names; None if the setting means everyone."""
        value = self.get(key)
        return None if value in ("", "ALL") else tuple(value.split(","))

    @property
    def state(self) -> str:
        """UP, DOWN, DRAIN or INACTIVE; "" if unknown."""
        return self.get("State")

    @property
    def exclusive(self) -> bool:
        """Whether every job gets whole nodes."""
        return "EXCLUSIVE" in (self.get("OverSubscribe"), self.get("Shared"))


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of a partition. `gpus` are counts by type, "" for GPUs without a type; `memory` is in MB."""

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
        """The number of its GPUs, of all types."""
        return sum(self.gpus.values())

    @property
    def takes_jobs(self) -> bool:
        """Whether its present state lets it start jobs."""
        return not self.state.lower().startswith(UNAVAILABLE) and not self.state.endswith("*")


@dataclass(frozen=True, kw_only=True)
class Site:
    """The cluster as one user sees it. None: not asked for, or Slurm did not answer."""

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
    def max_array_size(self) -> int:
        """MaxArraySize: an array's highest index is below it. Slurm's default if unknown."""
        return self._setting("MaxArraySize", 1001)

    @property
    def max_array_tasks(self) -> int | None:
        """How many tasks an array may have (SchedulerParameters); None if only MaxArraySize bounds them."""
        found = re.search(r"\bmax_array_tasks=(\d+)", self.settings.get("SchedulerParameters", ""))
        return int(found[1]) if found else None

    @property
    def max_job_count(self) -> int:
        """MaxJobCount: how many jobs the cluster holds, queued or running. Slurm's default if unknown."""
        return self._setting("MaxJobCount", 10_000)

    def _setting(self, name: str, default: int) -> int:
        value = number_of(self.settings.get(name, ""))
        return default if value is None else value

    @property
    def default_partition(self) -> str | None:
        """The partition of a job that names none."""
        return next((name for name, one in self.partitions.items() if one.get("Default") == "YES"), None)

    def partition_names(self, requested: str | None) -> list[str]:
        """The partitions of a job that requests `a,b`; the default partition if it requests none."""
        return [name for name in (requested or self.default_partition or "").split(",") if name]

    def nodes_of(self, partition: str) -> list[Node]:
        """The nodes of a partition; empty if sinfo shows none."""
        return [node for node in self.nodes or () if node.partition == partition]


def parse_rows(text: str, fields: Sequence[str]) -> list[Row]:
    """Read the output of `sacctmgr -n -P`. Lines with a different number of fields are left out."""
    rows = [line.split("|") for line in text.splitlines()]
    return [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]


def parse_partitions(text: str) -> dict[str, Partition]:
    """Read `scontrol show partition -o`; partitions by name."""
    partitions = {}
    for line in text.splitlines():
        settings = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", line))
        if name := settings.get("PartitionName"):
            partitions[name] = Partition(name, settings)
    return partitions


def parse_nodes(text: str) -> list[Node]:
    """Read the output of sinfo in NODE_FORMAT. `(null)` and `16+` are understood, other lines left out."""
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
                cpus=_leading_number(cpus),
                memory=_leading_number(memory),
                gpus=gpus_in_gres(gres),
                gres=gres_names(gres),
                features=frozenset() if features in NO_VALUE else frozenset(features.split(",")),
            )
        )
    return nodes


def minutes_of(text: str) -> int | None:
    """Minutes of a time limit as Slurm prints it; None if there is no limit."""
    if text in NO_VALUE:
        return None
    try:
        return minutes(text)
    except UsageError:
        return None


def number_of(text: str) -> int | None:
    """A whole number as Slurm prints it; None if there is no limit."""
    return int(text) if text.isdecimal() else None


def listed(names: Iterable[str]) -> str:
    """Names for a message: sorted, at most twelve, and how many more there are."""
    unique = sorted(set(names))
    more = f" and {len(unique) - 12} more" if len(unique) > 12 else ""
    return ", ".join(unique[:12]) + more


def _leading_number(text: str) -> int | None:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None
