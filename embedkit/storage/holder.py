"""Who holds a lock, and whether that process has ended.

A holder counts as ended only on evidence. Its pid means something only in the PID namespace of the same boot, so both
must be those of this process. A host name is no evidence: hosts and containers may share one. A machine id is none
either: hosts that were made from one image may share it. So on a network file system a lock is released by hand after a
restart of its host. A local file system is mounted by one machine at a time: there a lock of an earlier boot of this
host has ended. The name of the host must be this one's, since a machine may export its local file system to others.
"""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from embedkit.job import current_job
from embedkit.storage.processes import boot_id, has_ended, process_host, process_namespaces, process_start
from embedkit.storage.visibility import is_local
from embedkit.terminal import quote

BOOT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A boot id of Linux. No other system has one."""


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock. `started` distinguishes the process from a later one with the same pid.

    `job` is the scheduler's id of the holder's job on `cluster`, and `restart` counts that job's starts; all are ""
    outside a job.
    `token` is unique per holding. `boot` and `namespace` say where the pid means something, `since` when the holder got
    the lock (UTC); they are "" if not known, as in a record of an older version.
    """

    host: str
    pid: int
    started: str
    token: str
    job: str = ""
    restart: str = ""
    boot: str = ""
    namespace: str = ""
    since: str = ""
    cluster: str = ""

    @classmethod
    def of_this_process(cls, token: str) -> Self:
        """The record of this process."""
        pid, job = os.getpid(), current_job()
        return cls(
            *(process_host(), pid, process_start(pid), token),
            job=job.id,
            restart=str(job.restart) if job.id else "",
            boot=boot_id(),
            namespace=process_namespaces(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            cluster=job.cluster,
        )

    @property
    def is_here(self) -> bool:
        """Whether the holder's pid means the same process here: same boot of the same machine, same namespaces."""
        return bool(self.boot and self.namespace) and (self.boot, self.namespace) == (boot_id(), process_namespaces())

    @property
    def known_boot(self) -> str:
        """The id of the boot; "" if it is not known. `started` begins with it, in records of older versions too."""
        first = self.started.partition(" ")[0]
        return self.boot or (first if BOOT.fullmatch(first) else "")

    @property
    def place(self) -> tuple[str, str, str]:
        """The start of the host, and the container on it: after a power loss, all locks from there are left."""
        return self.host, self.known_boot, self.namespace

    @property
    def has_name_of_this_host(self) -> bool:
        """Whether the holder's host, or that of its container, has the name of this one."""
        return self.host.partition(" ")[0] == process_host().partition(" ")[0]

    def is_gone(self, path: Path) -> bool:
        """Whether the holder of the lock in the file `path` is known to have ended."""
        if self.is_here and has_ended(self.pid, self.started):
            return True
        boots = {self.known_boot, boot_id()}
        if len(boots) == 2 and all(map(BOOT.fullmatch, boots)) and self.has_name_of_this_host and is_local(path):
            return True
        job = current_job()  # a scheduler starts a job again only after its earlier start ended
        is_same_job = bool(job.id) and job.id == self.job and self.is_on_cluster(job.cluster)
        return is_same_job and self.restart.isdecimal() and int(self.restart) < job.restart

    def is_on_cluster(self, cluster: str) -> bool:
        """Whether the id of the holder's job means the same job on a cluster; True if one of them is not known."""
        return "" in (cluster, self.cluster) or cluster == self.cluster


def describe_holder(path: Path, holder: Holder | None, what: str, others: Mapping[Path, Holder]) -> str:
    """A sentence about the holder of the lock in the file `path`, and what to type. None: the lock cannot be read.

    `what` completes the sentence: "preparing this run". Of `others`, those from the same place are in the same command,
    so that not one after the other refuses.
    """
    with_it = {}
    if holder is not None and holder.known_boot and not holder.is_here:
        with_it = {one: its.pid for one, its in others.items() if one != path and its.place == holder.place}
    remove = "type: rm " + " ".join(quote(str(one)) for one in (path, *with_it))
    if holder is None:
        return f"another process is {what}, and its lock cannot be read. If no process is {what}, {remove}"
    job = f", job {holder.job}," if holder.job else ""
    since = f" since {holder.since}" if holder.since else ""
    who = f"process {holder.pid} on {holder.host}{job} is {what}{since}"
    doubt = _doubt(holder)
    if not doubt:
        return f"{who}. Wait until it ends, or end it: kill {holder.pid}"
    pids = [str(pid) for pid in dict.fromkeys(with_it.values()) if pid != holder.pid]
    ended = f"it has ended, and {', '.join(pids)} of the same host too," if pids else "it has ended,"
    return f"{who}. Whether it still runs cannot be seen from here: {doubt}. If {ended} {remove}"


def _doubt(holder: Holder) -> str:
    """Why nobody here can see whether a holder has ended; "" if it runs."""
    if holder.is_here:
        hidden = "its pid exists, but /proc does not show whether that is the same process"
        return "" if has_ended(holder.pid, holder.started) is False else hidden
    if not holder.has_name_of_this_host:
        return "it is on a different host"
    if not holder.known_boot:
        return "the lock does not name the boot of its process (an older embedkit made it)"
    if holder.known_boot != boot_id():
        return "that host has restarted since, or it is a different host of the same name"
    if not holder.namespace:
        return "the lock does not name the PID namespace of its process (an older embedkit made it)"
    return "it is in a different container (PID namespace) of this host"
