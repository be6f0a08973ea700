"""The cluster that Slurm's commands ask, where a site has several: chosen once, by a command of embedkit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

WITH_CLUSTERS = ("squeue", "scontrol", "sacct", "scancel", "sinfo")
"""Commands that take --clusters. sacctmgr asks the database, which several clusters share."""
_chosen: list[tuple[str, str]] = [("", "")]
"""The cluster that commands ask, and where its name comes from; the last entry counts."""


def use_cluster(name: str, source: str = "") -> None:
    """Send what follows in this process to one cluster of several.

    Args:
        name: the cluster; "" for the one that this machine belongs to.
        source: where the name comes from, for messages.
    """
    _chosen[-1] = (name, source)


@contextmanager
def on_cluster(name: str, source: str = "") -> Iterator[None]:
    """As `use_cluster`, until the end of the block."""
    _chosen.append((name, source))
    try:
        yield
    finally:
        _chosen.pop()


def chosen_cluster() -> str:
    """The cluster that commands ask; "" for the one that this machine belongs to."""
    return _chosen[-1][0]


def addressed(command: Sequence[str]) -> Sequence[str]:
    """The command with the chosen cluster."""
    name = chosen_cluster()
    return (command[0], f"--clusters={name}", *command[1:]) if name and command[0] in WITH_CLUSTERS else command


def where() -> str:
    """The chosen cluster for an error message."""
    name, source = _chosen[-1]
    return f" (cluster {name}{f', from {source}' if source else ''})" if name else ""
