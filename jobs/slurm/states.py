"""Which of Slurm's job states mean that a job is not over, or that its processes may still run."""

RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "RESIZING", "STOPPED", "SIGNALING", "STAGE_OUT")
"""States in which processes of the job may still run on a node."""
WAITING = ("PENDING", "CONFIGURING")
"""States in which the job has not started; a requeued job is here again, and its earlier start is over."""
UNKNOWN = "UNKNOWN"
"""The state of `slurm.client.state_of` where Slurm does not answer; Slurm itself has no such state."""


def is_active(state: str) -> bool:
    """Whether a start in this state has not ended. A state that this module does not know counts as an end."""
    return state in RUNNING or state in WAITING


def may_run(state: str) -> bool:
    """Whether processes of a job may still run. They may where Slurm does not answer."""
    return state in RUNNING or state == UNKNOWN
