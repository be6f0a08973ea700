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
    require_slurm,
    state_of,
)
from jobs.slurm.cluster import Node, Partition, Row, Site, listed, minutes_of, number_of
from jobs.slurm.find_jobs import SETTLE_SECONDS, Found, all_jobs, find_in_accounting, has_ended, look_up, still_active
from jobs.slurm.read_cluster import host_names, read_site, with_accounts, with_reservations, with_wckeys
from jobs.slurm.sbatch_call import SBATCH_SECONDS, SbatchAnswer, call_sbatch, run_sbatch
from jobs.slurm.squeue import queue
from jobs.slurm.states import may_run
from jobs.slurm.waiting_tasks import exclude_from_waiting_tasks

__all__ = [
    "QUERY_INTERVAL_SECONDS",
    "SBATCH_SECONDS",
    "SETTLE_SECONDS",
    "TIMEOUT_SECONDS",
    "Found",
    "JobRecord",
    "Node",
    "Partition",
    "Row",
    "SbatchAnswer",
    "Site",
    "Task",
    "all_jobs",
    "array_indices",
    "array_spec",
    "call_sbatch",
    "cancel",
    "exclude_from_waiting_tasks",
    "find_in_accounting",
    "has_ended",
    "has_slurm",
    "history",
    "host_names",
    "job_id",
    "listed",
    "look_up",
    "may_run",
    "minutes_of",
    "number_of",
    "own_environment",
    "queue",
    "read_site",
    "require_slurm",
    "run_sbatch",
    "state_of",
    "still_active",
    "with_accounts",
    "with_reservations",
    "with_wckeys",
]
