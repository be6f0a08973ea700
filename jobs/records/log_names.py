"""Names of the logs in a run's `logs/`, without their suffix."""

from jobs.profiles import Stage

GROUP_LOG = "embed-job-"
"""Prefix of the log of an array task with several shards; the number of its first shard follows."""


def log_name(stage: Stage, shard: int | None) -> str:
    """The name of a job's log without its suffix: `embed-00017`, `merge`."""
    return stage if shard is None else f"{stage}-{shard:05d}"
