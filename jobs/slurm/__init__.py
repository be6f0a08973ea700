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
from jobs.slurm.exit_codes import Ending, explain_exit, is_not_found, signal_of
from jobs.slurm.read_cluster import host_names, read_site, with_accounts, with_reservations, with_wckeys
from jobs.slurm.states import has_started, may_run
from jobs.slurm.suspensions import suspensions
from jobs.slurm.waiting_tasks import exclude_from_waiting_tasks

__all__ = [
    "QUERY_INTERVAL_SECONDS",
    "TIMEOUT_SECONDS",
    "Ending",
    "JobRecord",
    "Node",
    "Partition",
    "Row",
    "Site",
    "Task",
    "array_indices",
    "array_spec",
    "cancel",
    "exclude_from_waiting_tasks",
    "explain_exit",
    "has_slurm",
    "has_started",
    "history",
    "host_names",
    "is_not_found",
    "job_id",
    "listed",
    "may_run",
    "minutes_of",
    "number_of",
    "own_environment",
    "queue",
    "read_site",
    "require_slurm",
    "signal_of",
    "state_of",
    "suspensions",
    "with_accounts",
    "with_reservations",
    "with_wckeys",
]
