"""Which of Slurm's job states mean that a job is not over, or that its processes may still run."""

RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "RESIZING", "STOPPED", "SIGNALING", "STAGE_OUT")
"""States in which processes of the job may still run on a node."""
WAITING = ("PENDING", "CONFIGURING")
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


def may_run(state: str) -> bool:
    """Whether processes of a job may still run. They may where Slurm does not answer."""
    return state in RUNNING or state == UNKNOWN
