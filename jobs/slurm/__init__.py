"""Asking Slurm: the queue, the accounting and the cluster's own description."""

from jobs.slurm.accounting import JobRecord, history
from jobs.slurm.chosen_cluster import chosen_cluster, on_cluster, use_cluster
from jobs.slurm.client import (
    MOST_JOBS,
    QUERY_INTERVAL_SECONDS,
    TIMEOUT_SECONDS,
    Task,
    array_indices,
    array_spec,
    cancel,
    configuration,
    has_slurm,
    job_id,
    job_list,
    own_environment,
    require_slurm,
    state_of,
)
from jobs.slurm.cluster import Node, Partition, Row, Site, listed, minutes_of, number_of
from jobs.slurm.commands import PIPE_FOLDER, start_command
from jobs.slurm.exit_codes import Ending, explain_exit, is_not_found, signal_of
from jobs.slurm.find_jobs import (
    SETTLE_SECONDS,
    Found,
    all_jobs,
    find_in_accounting,
    has_ended,
    look_up,
    look_up_shown,
    still_active,
)
from jobs.slurm.job_times import JobTimes, job_times
from jobs.slurm.partition_nodes import partition_nodes
from jobs.slurm.read_cluster import host_names, read_site, with_accounts, with_reservations, with_wckeys
from jobs.slurm.sbatch_call import SBATCH_SECONDS, SbatchAnswer, call_sbatch, run_sbatch
from jobs.slurm.squeue import queue
from jobs.slurm.states import has_started, may_run
from jobs.slurm.stop_cause import StopCause, stop_cause
from jobs.slurm.suspensions import suspensions
from jobs.slurm.waiting_tasks import exclude_from_waiting_tasks

__all__ = [
    "MOST_JOBS",
    "PIPE_FOLDER",
    "QUERY_INTERVAL_SECONDS",
    "SBATCH_SECONDS",
    "SETTLE_SECONDS",
    "TIMEOUT_SECONDS",
    "Ending",
    "Found",
    "JobRecord",
    "JobTimes",
    "Node",
    "Partition",
    "Row",
    "SbatchAnswer",
    "Site",
    "StopCause",
    "Task",
    "all_jobs",
    "array_indices",
    "array_spec",
    "call_sbatch",
    "cancel",
    "chosen_cluster",
    "configuration",
    "exclude_from_waiting_tasks",
    "explain_exit",
    "find_in_accounting",
    "has_ended",
    "has_slurm",
    "has_started",
    "history",
    "host_names",
    "is_not_found",
    "job_id",
    "job_list",
    "job_times",
    "listed",
    "look_up",
    "look_up_shown",
    "may_run",
    "minutes_of",
    "number_of",
    "on_cluster",
    "own_environment",
    "partition_nodes",
    "queue",
    "read_site",
    "require_slurm",
    "run_sbatch",
    "signal_of",
    "start_command",
    "state_of",
    "still_active",
    "stop_cause",
    "suspensions",
    "use_cluster",
    "with_accounts",
    "with_reservations",
    "with_wckeys",
]
