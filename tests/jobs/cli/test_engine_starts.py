"""What several shards with one start of the engine save, from numbers."""

import pytest

from embedkit.run import RunFolder
from jobs.cli.engine_starts import START_SECONDS, engines_line, start_seconds


@pytest.mark.parametrize(
    ("shards", "in_turn", "start", "line"),
    [
        (56, 1, 40.0, "shards_per_task = 7 in [embed], which is off by default, would save about 4 of 215 minutes"),
        (56, 7, 40.0, "8 starts of about 40 s instead of 56: shards_per_task = 7 saves about 4 of 215 minutes"),
        (16, 3, 60.0, "shards_per_task = 3 takes about 29 of 62 minutes longer, since only 6 shards run at once"),
        (8, 1, 60.0, ""),  # one wave: each GPU starts one engine anyway
        (56, 1, 1.0, ""),
    ],
)
def test_what_shards_in_turn_save(shards: int, in_turn: int, start: float, line: str) -> None:
    """Shards of half an hour on eight GPUs."""
    found = engines_line([1800.0] * shards, 8, in_turn, start)
    assert len(found) == bool(line)
    assert all(line in one for one in found)


def test_a_start_without_a_preflight_is_assumed(hash_run: RunFolder) -> None:
    assert start_seconds(hash_run) == START_SECONDS
