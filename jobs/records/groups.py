"""Groups of shards: the shards of one array task, which its workers share.

They are side by side, one per GPU (gpus_per_job), or each worker embeds several in turn (shards_per_task).
The array index of a group is its first shard. So a shard keeps its number in reruns.
"""

from collections.abc import Sequence

from embedkit.errors import EmbedkitError


def groups(shards: Sequence[int], per_job: int) -> tuple[tuple[int, ...], ...]:
    """Cut ascending shards into groups of `per_job`, in order; the last group may be smaller."""
    return tuple(tuple(shards[begin : begin + per_job]) for begin in range(0, len(shards), per_job))


def group_of(index: int, shards: Sequence[int], per_job: int) -> tuple[int, ...]:
    """The group with this array index. Raises EmbedkitError if there is none."""
    for group in groups(shards, per_job):
        if group[0] == index:
            return group
    raise EmbedkitError(
        f"array index {index} begins no group: it is not the first of {per_job} shards in {list(shards)}"
    )
