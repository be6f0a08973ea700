"""Choose the number of shards of a new run so that the site accepts it."""

from dataclasses import dataclass

from jobs.submit.accepted_shards import ShardLimit


@dataclass(frozen=True)
class ShardChoice:
    """A number of shards. `note` says why it is not the default."""

    shards: int
    note: str = ""


def fit_shards(wanted: int, at_once: int, now: ShardLimit, idle: ShardLimit) -> ShardChoice | None:
    """Choose the number of shards: the default, or as many as fit.

    The number is permanent. So jobs that happen to be queued may lower it, but not below what runs at once.

    Args:
        wanted: the default number.
        at_once: how many shards are embedded at once.
        now: the tightest limit, with the jobs that are queued.
        idle: the tightest limit if nothing were queued.

    Returns:
        None if too few shards fit: now because of queued jobs, or at all.
    """
    if wanted <= now.shards:
        return ShardChoice(wanted)
    if now.shards < max(min(at_once, wanted, idle.shards), 1):
        return None
    # A last wave that is not full takes as long as a full one.
    shards = now.shards - now.shards % at_once if now.shards > at_once else now.shards
    queued = f", and {now.queued} of your jobs are queued or running" if now.queued else ""
    note = f"{wanted:,} shards would be the default; {now.shards:,} fit {now.name} ({now.most:,}{queued})"
    if shards != now.shards:
        note += f", and {shards:,} is a multiple of the {at_once:,} at once"
    return ShardChoice(shards, note)
