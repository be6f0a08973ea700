"""What it saves to embed several shards with one start of the engine (shards_per_task)."""

import math
from collections.abc import Sequence

from embedkit.documents import Preflight, read
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.monitor import seconds_until_done

START_SECONDS = 60.0
"""How long an engine takes to start, before a preflight has measured it: 25 to 90 s."""


def start_seconds(run: RunFolder) -> float:
    """How long the engine of a run takes to start: as in its preflight, else START_SECONDS."""
    try:
        return read(run.preflight, Preflight).start_seconds if run.preflight.exists() else START_SECONDS
    except EmbedkitError:
        return START_SECONDS


def in_turn_seconds(left: Sequence[float], in_turn: int, start: float = 0.0) -> list[float]:
    """Seconds of each start of an engine, which embeds up to `in_turn` shards one after another.

    Args:
        left: seconds of each unfinished shard.
        in_turn: shards per start.
        start: seconds of the start itself.
    """
    return [start + sum(left[begin : begin + in_turn]) for begin in range(0, len(left), in_turn)]


def engines_line(left: Sequence[float], parallel: int, in_turn: int, start: float) -> list[str]:
    """Say how often the engine starts, and what shards_per_task saves, or would save; nothing if it saves nothing.

    Args:
        left: seconds of each unfinished shard, without starts of engines.
        parallel: shards embedded at once.
        in_turn: shards_per_task of the profile.
        start: seconds of a start.
    """
    turns = in_turn if in_turn > 1 else math.ceil(len(left) / parallel)
    alone, together = (in_turn_seconds(left, count, start) for count in (1, turns))
    before, after = (seconds_until_done((), each, min(parallel, len(each))) for each in (alone, together))
    saved = f"about {abs(before - after) / 60:,.0f} of {before / 60:,.0f} minutes"
    if in_turn > 1:
        change = f"saves {saved}"
        if after > before:
            change = f"takes {saved} longer, since only {min(parallel, len(together)):,} shards run at once"
        return [
            f"engines  {len(together):,} starts of about {start:.0f} s instead of {len(alone):,}: "
            f"shards_per_task = {in_turn} {change}"
        ]
    if turns < 2 or before - after < 30:
        return []
    return [
        f"engines  {len(alone):,} starts of about {start:.0f} s. shards_per_task = {turns} in [embed], which is off by "
        f"default, would save {saved}"
    ]
