"""Names of logs, without their ending, in a run's `logs/`."""

from jobs.profiles.schema import Stage

GROUP_LOG = "embed-job-"
"""What the log of an array task that embeds several shards begins with; its first shard follows."""


def log_name(stage: Stage, shard: int | None) -> str:
    """The name of a job's log without its ending: `embed-00017`, `merge`."""
    return stage if shard is None else f"{stage}-{shard:05d}"
