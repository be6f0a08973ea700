"""Asking Slurm: the queue, the accounting and the cluster's own description."""

from jobs.slurm.accounting import JobRecord, history
from jobs.slurm.client import (
    QUERY_INTERVAL_SECONDS,
    TIMEOUT_SECONDS,
    Task,
    array_indices,
    array_spec,
    cancel,
    has_slurm,
    job_id,
    own_environment,
    queue,
    require_slurm,
    state_of,
)
from jobs.slurm.cluster import Node, Partition, Row, Site, listed, minutes_of, number_of
from jobs.slurm.job_times import JobTimes, job_times
from jobs.slurm.partition_nodes import partition_nodes
from jobs.slurm.read_cluster import host_names, read_site, with_accounts, with_reservations, with_wckeys
from jobs.slurm.states import may_run
from jobs.slurm.waiting_tasks import exclude_from_waiting_tasks

__all__ = [
    "QUERY_INTERVAL_SECONDS",
    "TIMEOUT_SECONDS",
    "JobRecord",
    "JobTimes",
    "Node",
    "Partition",
    "Row",
    "Site",
    "Task",
    "array_indices",
    "array_spec",
    "cancel",
    "exclude_from_waiting_tasks",
    "has_slurm",
    "history",
    "host_names",
    "job_id",
    "job_times",
    "listed",
    "may_run",
    "minutes_of",
    "number_of",
    "own_environment",
    "partition_nodes",
    "queue",
    "read_site",
    "require_slurm",
    "state_of",
    "with_accounts",
    "with_reservations",
    "with_wckeys",
]
