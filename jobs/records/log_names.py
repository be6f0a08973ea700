"""Names of the logs in a run's `logs/`, without their suffix."""

from jobs.profiles import STAGES, Stage

GROUP_LOG = "embed-job-"
"""Prefix of the log of an array task with several shards; the number of its first shard follows."""
ATTEMPTS_SUFFIX = ".attempts.jsonl"
"""Suffix of an attempts file, after the name of its log."""
Place = tuple[Stage, int | None]
"""A stage, and a shard or None: what one attempts file, and one lane of a report's timeline, belong to."""


def log_name(stage: Stage, shard: int | None) -> str:
    """The name of a job's log without its suffix: `embed-00017`, `merge`."""
    return stage if shard is None else f"{stage}-{shard:05d}"


def place_of(name: str) -> Place | None:
    """The stage and shard in a log's name; None if embedkit does not name logs so."""
    stage, dash, number = name.partition("-")
    known = {str(known): known for known in STAGES}
    if stage not in known or bool(dash) != number.isdecimal():
        return None
    return known[stage], int(number) if number else None
