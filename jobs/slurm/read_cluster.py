"""Ask Slurm for its description of the cluster: partitions, nodes, accounts, QOS, reservations."""

import getpass
import grp
import os
import re
from collections.abc import Sequence
from dataclasses import replace

from embedkit.errors import EmbedkitError
from jobs.slurm.client import configuration, run_slurm
from jobs.slurm.cluster import (
    ASSOC_FIELDS,
    NODE_FORMAT,
    QOS_FIELDS,
    Node,
    Partition,
    Row,
    Site,
    parse_nodes,
    parse_partitions,
    parse_rows,
)


def read_site(*, need_partitions: bool = True) -> Site:
    """Read settings, partitions and nodes, and who the user is.

    Args:
        need_partitions: raise if the partitions cannot be read; else the site has none then.

    Raises:
        EmbedkitError: slurmctld does not answer.
    """
    try:
        partitions = _read_partitions()
    except EmbedkitError:
        if need_partitions:
            raise
        partitions = {}
    return Site(
        user=getpass.getuser(),
        groups=_groups(),
        settings=configuration(),
        partitions=partitions,
        nodes=_read_nodes(),
    )


def with_accounts(site: Site) -> Site:
    """Add associations, QOS and the user's default account; unchanged where there is no accounting."""
    if not _has_accounting(site):
        return site
    rows = accounting_rows("user", ("DefaultAccount",), site.user) or []
    return replace(
        site,
        associations=accounting_rows("assoc", ASSOC_FIELDS, *_this_cluster(site)),
        qos=accounting_rows("qos", QOS_FIELDS),
        default_account=rows[0]["DefaultAccount"] if rows else "",
    )


def with_wckeys(site: Site) -> Site:
    """Add the user's wckeys; unchanged where there is no accounting."""
    if not _has_accounting(site):
        return site
    rows = accounting_rows("wckey", ("WCKey",), f"user={site.user}", *_this_cluster(site))
    return replace(site, wckeys=None if rows is None else frozenset(row["WCKey"].lstrip("*") for row in rows))


def with_reservations(site: Site) -> Site:
    """Add the names of the reservations."""
    try:
        text = run_slurm("scontrol", "show", "reservation", "-o")
    except EmbedkitError:
        return site
    return replace(site, reservations=frozenset(re.findall(r"^ReservationName=(\S+)", text, re.MULTILINE)))


def host_names(hosts: str) -> frozenset[str] | None:
    """The node names that `n[1-4],n7` stands for; None if Slurm cannot read it."""
    if not re.search(r"[\[/]", hosts):
        return frozenset(name for name in hosts.split(",") if name)
    try:
        return frozenset(run_slurm("scontrol", "show", "hostnames", hosts).split())
    except EmbedkitError:
        return None


def accounting_rows(entity: str, fields: Sequence[str], *where: str) -> list[Row] | None:
    """Rows of `sacctmgr show ENTITY`; None if it fails. Fields that this version does not know are left out."""
    known = list(fields)
    while known:
        try:
            text = run_slurm("sacctmgr", "-n", "-P", "show", entity, *where, f"format={','.join(known)}")
        except EmbedkitError as error:
            unknown = re.search(r"[Uu]nknown field '([^']+)'", str(error))
            rest = [name for name in known if unknown and name.lower() != unknown[1].lower()]
            if len(rest) in (0, len(known)):
                return None
            known = rest
        else:
            return parse_rows(text, known)
    return None


def _read_partitions() -> dict[str, Partition]:
    return parse_partitions(run_slurm("scontrol", "show", "partition", "-o"))


def _read_nodes() -> list[Node] | None:
    """Every node, once per partition; None if sinfo fails."""
    try:
        return parse_nodes(run_slurm("sinfo", "-h", "-N", "-o", NODE_FORMAT))
    except EmbedkitError:
        return None


def _has_accounting(site: Site) -> bool:
    return "slurmdbd" in site.settings.get("AccountingStorageType", "")


def _this_cluster(site: Site) -> list[str]:
    """The condition for rows of this cluster only: one database may serve several."""
    name = site.settings.get("ClusterName")
    return [f"cluster={name}"] if name else []


def _groups() -> frozenset[str]:
    """The names of the groups of this process."""
    names = set()
    for number in {*os.getgroups(), os.getegid()}:
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return frozenset(names)
