"""Check the CPUs and the memory of a task against the largest node and the limits per node and per CPU."""

from collections.abc import Iterator, Sequence

from jobs.profiles import Resources
from jobs.slurm import Node, Partition, Site, number_of
from jobs.submit.check_profile.finding import Finding, note, refused, warning


def check_cpus(resources: Resources, partition: Partition, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Check the CPUs of a task against the largest node and MaxCPUsPerNode."""
    per_node = number_of(partition.get("MaxCPUsPerNode"))
    for most, name in ((_most_cpus(nodes), "nodes have at most"), (per_node, "MaxCPUsPerNode is")):
        if resources.cpus is not None and most is not None and resources.cpus > most:
            actual = f"{name} {most} in {partition.name}"
            yield refused("cpus", requested=str(resources.cpus), actual=actual, key="cpus", fix=f"at most {most}")
            return


def check_memory(resources: Resources, partition: Partition, site: Site) -> Iterator[Finding]:
    """Check the memory of a task against the largest node, MaxMemPerNode and MaxMemPerCPU."""
    if resources.mem is None:
        yield note("mem", requested="none", actual=f"the default is {_default_memory(partition, site)}")
    if not resources.mem:
        return
    requested = f"{resources.mem} MB"
    nodes = site.nodes_of(partition.name)
    largest = max((node.memory for node in nodes if node.memory is not None), default=None)
    per_node = _memory_setting("MaxMemPerNode", partition, site)
    for most, name in ((largest, "the largest node has"), (per_node, "MaxMemPerNode is")):
        if most is not None and resources.mem > most:
            actual = f"{name} {most} MB in {partition.name}"
            yield refused("mem", requested=requested, actual=actual, key="mem", fix=f"at most {most}")
            break
    per_cpu = _memory_setting("MaxMemPerCPU", partition, site)
    cpus = resources.cpus or 1
    needed = -(-resources.mem // per_cpu) if per_cpu else 0
    if per_cpu and needed > cpus:
        # Slurm raises the number of CPUs until the memory per CPU is within the limit.
        most_cpus = _most_cpus(nodes)
        level = refused if most_cpus is not None and needed > most_cpus else warning
        fix = f"at most {cpus * per_cpu}, or cpus = {needed}: Slurm would allocate {needed} CPUs for it"
        yield level("mem", requested=requested, actual=f"MaxMemPerCPU is {per_cpu} MB", key="mem", fix=fix)


def _default_memory(partition: Partition, site: Site) -> str:
    for key in ("DefMemPerNode", "DefMemPerCPU"):
        if value := _memory_setting(key, partition, site):
            return f"{key} {value} MB"
    return "all memory of the node"


def _memory_setting(key: str, partition: Partition, site: Site) -> int | None:
    """MB of a limit or default, per CPU or per node. The partition's settings, if it has any, replace the cluster's."""
    alternative = key.replace("PerNode", "PerCPU") if "PerNode" in key else key.replace("PerCPU", "PerNode")
    if partition.get(key) or partition.get(alternative):
        return number_of(partition.get(key))
    return number_of(site.settings.get(key, ""))


def _most_cpus(nodes: Sequence[Node]) -> int | None:
    return max((node.cpus for node in nodes if node.cpus is not None), default=None)
