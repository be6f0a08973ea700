"""Slurm's job states: which mean that a job has no node yet, that it is not over, that its processes may still run."""

RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "RESIZING", "STOPPED", "SIGNALING", "STAGE_OUT")
"""States in which processes of the job may still run on a node."""
HELD = ("SPECIAL_EXIT", "REQUEUE_HOLD", "RESV_DEL_HOLD")
"""States of a job that waits until a person releases it; a job in PENDING may be held too, by its reason."""
QUEUED = ("PENDING", "REQUEUED", "REQUEUE_FED", *HELD)
"""States in which squeue shows a job that has no node. In the accounting REQUEUED is the end of a start."""
WAITING = ("PENDING", "CONFIGURING", "REQUEUE_FED", *HELD)
"""States in which the job has not started; a requeued job is here again, and its earlier start is over."""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL", "REVOKED")
"""States of a job that has ended and does not start again by itself."""
BROKEN_OFF = ("NODE_FAIL", "PREEMPTED", "REQUEUED")
"""States of a start that has ended; the job may start again."""
UNKNOWN = "UNKNOWN"
"""The state of `slurm.client.state_of` where Slurm does not answer; Slurm itself has no such state."""


def is_active(state: str) -> bool:
    """Whether a start in this state has not ended. A state that this module does not know counts as an end."""
    return state in RUNNING or state in WAITING


def has_started(state: str) -> bool:
    """Whether a job that squeue shows has started: it has a node, and the node does not start up any more."""
    return state not in QUEUED and state not in WAITING


def may_run(state: str) -> bool:
    """Whether processes of a job may still run. They may where Slurm does not answer."""
    return state in RUNNING or state == UNKNOWN
