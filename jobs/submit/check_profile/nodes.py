"""Check which nodes of a partition can run a task: named nodes, features, and all requests together."""

import re
from collections.abc import Iterator, Mapping, Sequence

from jobs.profiles import Resources
from jobs.slurm import Node, Partition, Site, host_names, listed
from jobs.submit.check_profile.cpus_and_memory import check_cpus, check_memory
from jobs.submit.check_profile.finding import Finding, ok, refused, warning
from jobs.submit.check_profile.gpus import check_gpus, check_gres
from jobs.submit.check_profile.wording import task_size

Hosts = Mapping[str, frozenset[str] | None]
"""The node names that each nodelist or exclude of a profile stands for; None if Slurm cannot read it."""


def hosts_of(*stages: Resources) -> Hosts:
    """Ask Slurm which nodes each nodelist and exclude of these stages names."""
    return {text: host_names(text) for one in stages for text in (one.nodelist, one.exclude) if text}


def check_nodes(resources: Resources, partition: Partition, site: Site, hosts: Hosts) -> Iterator[Finding]:
    """Check each request of a task against the nodes of a partition, then how many nodes meet all of them."""
    nodes = site.nodes_of(partition.name)
    is_refused = False
    for finding in (
        *_check_named_nodes(resources, partition, site, hosts),
        *_check_features(resources, partition, nodes),
        *check_gpus(resources, partition, site),
        *check_gres(resources, partition, nodes),
        *check_cpus(resources, partition, nodes),
        *check_memory(resources, partition, site),
    ):
        is_refused |= finding.level == "refused"
        yield finding
    if not is_refused:
        yield _count_fitting(resources, partition, nodes, hosts)


def eligible_nodes(resources: Resources, nodes: Sequence[Node], hosts: Hosts) -> list[Node]:
    """The nodes that nodelist, exclude and constraint allow and that have GPUs of the requested types."""
    only, without = hosts.get(resources.nodelist or ""), hosts.get(resources.exclude or "") or frozenset()
    types = {kind for kind in resources.requested_gpus if kind}
    return [
        node
        for node in nodes
        if (only is None or node.name in only)
        and node.name not in without
        and (not resources.constraint or _has_features(resources.constraint, node))
        and types <= node.gpus.keys()
    ]


def _count_fitting(resources: Resources, partition: Partition, nodes: Sequence[Node], hosts: Hosts) -> Finding:
    fitting = [node for node in eligible_nodes(resources, nodes, hosts) if _fits(resources, node)]
    working = sum(node.takes_jobs for node in fitting)
    size = task_size(resources)
    if not fitting:
        actual = f"no node of {partition.name} has all of it"
        fix = "less of cpus, mem or gpus, or a different constraint"
        return refused("nodes", requested=size, actual=actual, key="cpus", fix=fix)
    if not working:
        states = listed(node.state for node in fitting)
        actual = f"{len(fitting)} nodes of {partition.name} fit, but all of them are {states}"
        return warning("nodes", requested=size, actual=actual)
    now = f", {working} take jobs now" if working < len(fitting) else ""
    return ok("nodes", requested=size, actual=f"{len(fitting)} of {len(nodes)} nodes of {partition.name} fit{now}")


def _fits(resources: Resources, node: Node) -> bool:
    """Whether a node has the GPUs, CPUs, memory and other resources of one task."""
    requested = resources.requested_gpus.items()
    gpus = all((node.gpus.get(kind, 0) if kind else node.gpu_count) >= count for kind, count in requested)
    cpus = node.cpus is None or (resources.cpus or 1) <= node.cpus
    memory = node.memory is None or (resources.mem or 0) <= node.memory
    return gpus and cpus and memory and resources.gres_without_gpus <= node.gres


def _check_named_nodes(resources: Resources, partition: Partition, site: Site, hosts: Hosts) -> Iterator[Finding]:
    for key, text in (("nodelist", resources.nodelist), ("exclude", resources.exclude)):
        if not text:
            continue
        problem = _names_problem(key, hosts.get(text), partition, site)
        if problem is not None:
            yield refused(key, requested=f'"{text}"', actual=problem[0], key=key, fix=problem[1])
        names = hosts.get(text)
        if key == "nodelist" and names and len(names) > 1:
            yield refused(
                key,
                requested=f'"{text}"',
                actual=f"Slurm gives each task all {len(names)} of these nodes, but a task runs on one",
                key=key,
                fix="one node; or exclude the unwanted nodes, or use a constraint",
            )


def _names_problem(key: str, names: frozenset[str] | None, partition: Partition, site: Site) -> tuple[str, str] | None:
    """What is wrong with the names of a nodelist or exclude, and the fix; None if nothing is."""
    known = {node.name for node in site.nodes or ()}
    in_partition = {node.name for node in site.nodes_of(partition.name)}
    if names is None:
        return "Slurm cannot read it as names of nodes", 'as in "n[1-4],n7"'
    if unknown := names - known:
        return f"no such nodes: {listed(unknown)}", f"nodes are {listed(known)}"
    # Slurm requires all nodes of a nodelist, so each has to be in the partition.
    if key == "nodelist" and (elsewhere := names - in_partition):
        return f"{listed(elsewhere)} not in {partition.name}", f"one of {listed(in_partition)}"
    if key == "exclude" and not in_partition - names:
        return f"these are all nodes of {partition.name}", "name fewer nodes"
    return None


def _check_features(resources: Resources, partition: Partition, nodes: Sequence[Node]) -> Iterator[Finding]:
    if not resources.constraint:
        return
    known = {feature for node in nodes for feature in node.features}
    unknown = _feature_names(resources.constraint) - known
    requested = f'"{resources.constraint}"'
    if unknown:
        yield refused(
            "constraint",
            requested=requested,
            actual=f"no node of {partition.name} has {listed(unknown)}",
            key="constraint",
            fix=f"features there: {listed(known) if known else 'none'}",
        )
    elif not any(_has_features(resources.constraint, node) for node in nodes):
        actual = f"no node of {partition.name} has all of them"
        yield refused("constraint", requested=requested, actual=actual, key="constraint", fix="require fewer features")


def _feature_names(constraint: str) -> set[str]:
    """The features that a constraint names: `a&b`, `[a*2&b*4]`, `a|(b)`. A feature may begin with a digit."""
    return {name for name in re.split(r"[&|,()\[\]]", re.sub(r"\*\d+", "", constraint)) if name.strip()}


def _has_features(constraint: str, node: Node) -> bool:
    """Whether a node meets `a&b` or `a|b`; of a more complex constraint, any one name is enough."""
    names = _feature_names(constraint)
    return names <= node.features if not re.search(r"[|\[(*]", constraint) else bool(names & node.features)
