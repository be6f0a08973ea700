"""Groups of shards: which shards one array task embeds where one allocation feeds several GPUs (gpus_per_job).

A group is named by its first shard, which is the array's index: a shard keeps its number, in reruns too.
"""

from collections.abc import Sequence

from embedkit.errors import EmbedkitError


def groups(shards: Sequence[int], per_job: int) -> tuple[tuple[int, ...], ...]:
    """Ascending shards, cut in order into groups of `per_job`; the last may be smaller."""
    return tuple(tuple(shards[begin : begin + per_job]) for begin in range(0, len(shards), per_job))


def group_of(index: int, shards: Sequence[int], per_job: int) -> tuple[int, ...]:
    """The group that an array's index names. Raises EmbedkitError if none begins there."""
    for group in groups(shards, per_job):
        if group[0] == index:
            return group
    raise EmbedkitError(f"array index {index} begins no group of {per_job} of the shards {list(shards)}")
