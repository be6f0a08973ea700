"""Who holds a lock, and whether that process has ended.

A holder counts as ended only on evidence. Its pid means something only in the PID namespace of the same boot, so both
must be those of this process. A host name is no evidence: hosts and containers may share one. A machine id is none
either: hosts that were made from one image may share it. So after a restart of its host a lock is released by hand.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from embedkit.job import current_job
from embedkit.storage.processes import boot_id, has_ended, process_host, process_namespaces, process_start
from embedkit.terminal import quote


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
    def is_gone(self) -> bool:
        """Whether the holder is known to have ended."""
        if self.is_here and has_ended(self.pid, self.started):
            return True
        job = current_job()  # a scheduler starts a job again only after its earlier start ended
        is_same_job = bool(job.id) and job.id == self.job and self.is_on_cluster(job.cluster)
        return is_same_job and self.restart.isdecimal() and int(self.restart) < job.restart

    def is_on_cluster(self, cluster: str) -> bool:
        """Whether the id of the holder's job means the same job on a cluster; True if one of them is not known."""
        return "" in (cluster, self.cluster) or cluster == self.cluster


def describe_holder(path: Path, holder: Holder | None, what: str) -> str:
    """A sentence about the holder of the lock at `path`, and what to type. None: the lock cannot be read.

    `what` completes the sentence: "preparing this run".
    """
    remove = f"type: rm {quote(str(path))}"
    if holder is None:
        return f"another process is {what}, and its lock cannot be read. If no process is {what}, {remove}"
    job = f", job {holder.job}," if holder.job else ""
    since = f" since {holder.since}" if holder.since else ""
    who = f"process {holder.pid} on {holder.host}{job} is {what}{since}"
    doubt = _doubt(holder)
    if not doubt:
        return f"{who}. Wait until it ends, or end it: kill {holder.pid}"
    return f"{who}. Whether it still runs cannot be seen from here: {doubt}. If it has ended, {remove}"


def _doubt(holder: Holder) -> str:
    """Why nobody here can see whether a holder has ended; "" if it runs."""
    if holder.is_here:
        hidden = "its pid exists, but /proc does not show whether that is the same process"
        return "" if has_ended(holder.pid, holder.started) is False else hidden
    if holder.host.partition(" ")[0] != process_host().partition(" ")[0]:
        return "it is on a different host"
    if not (holder.boot and holder.namespace):
        return "the lock does not name the boot and the PID namespace of its process (an older embedkit made it)"
    if holder.boot != boot_id():
        return "that host has restarted since, or it is a different host of the same name"
    return "it is in a different container (PID namespace) of this host"
