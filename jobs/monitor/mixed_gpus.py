"""The note of `status` and `report` about a run whose finished shards are from several GPU models."""

from collections.abc import Iterable

from jobs.slurm import array_spec

LONGEST_LIST = 60
"""Characters of a list of shards."""


def mixed_gpus_note(shards: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """The line that names each GPU model and its shards; none if there are fewer than two models.

    Args:
        shards: the finished shards, each with the name of its GPU; "" for a CPU.
    """
    models: dict[str, list[int]] = {}
    for shard, gpu in shards:
        if gpu:
            models.setdefault(gpu, []).append(shard)
    if len(models) < 2:
        return ()
    named = "; ".join(f"{gpu}: shards {_short(numbers)}" for gpu, numbers in sorted(models.items()))
    return (f"finished shards are from several GPU models, which merge accepts only with --allow-mixed: {named}",)


def _short(shards: list[int]) -> str:
    spec = array_spec(shards)
    return spec if len(spec) <= LONGEST_LIST else f"{spec[:LONGEST_LIST].rpartition(',')[0]}, ... ({len(shards)})"
