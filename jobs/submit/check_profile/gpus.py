"""Check the GPUs and other generic resources of a task against the nodes of a partition."""

from collections.abc import Iterator, Sequence

from jobs.gpu_request import gpu_options
from jobs.profiles import Resources
from jobs.slurm import Node, Partition, Site, listed
from jobs.submit.check_profile.finding import Finding, refused


def check_gpus(resources: Resources, partition: Partition, site: Site) -> Iterator[Finding]:
    """Check the number and the type of the GPUs."""
    nodes = site.nodes_of(partition.name)
    types = {kind for node in nodes for kind in node.gpus}
    key, requested = _request(resources)
    for kind, count in resources.requested_gpus.items():
        most = max((node.gpus.get(kind, 0) if kind else node.gpu_count for node in nodes), default=0)
        if not types:
            elsewhere = {node.partition for node in site.nodes or () if node.gpus}
            fix = f"one of {listed(elsewhere)}" if elsewhere else "no partition has any"
            actual = f"{partition.name} has no GPUs"
            yield refused("gpus", requested=requested, actual=actual, key="partition", fix=fix)
        elif kind and kind not in types:
            actual = f"{partition.name} has no GPUs of type {kind}"
            choices = _choices(types, count) or f'"gpu:{count}"'
            yield refused("gpus", requested=requested, actual=actual, key=key, fix=f"gres = {choices}")
        elif most < count:
            actual = f"nodes of {partition.name} have at most {most}"
            yield refused("gpus", requested=requested, actual=actual, key=key, fix=f"at most {most}")


def _request(resources: Resources) -> tuple[str, str]:
    """The key of the profile that decides the GPUs of a task, and its value as text."""
    options = gpu_options(resources.sbatch)
    if resources.gpus:
        return "gpus", f"gpus = {resources.gpus}"
    if options:
        return "sbatch", f"{options[0]} = {resources.sbatch[options[0]]}"
    return "gres", f'"{resources.gres}"'


def check_gres(resources: Resources, partition: Partition, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Check that some node has each generic resource other than GPUs."""
    available = {name for node in nodes for name in node.gres}
    for name in sorted(resources.gres_without_gpus - available):
        actual = f"no node of {partition.name} has {name}"
        yield refused("gres", requested=f'"{resources.gres}"', actual=actual, key="gres", fix="leave it out")


def _choices(types: set[str], count: int) -> str:
    return " or ".join(f'"gpu:{name}:{count}"' for name in sorted(types) if name)
