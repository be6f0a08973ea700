"""Fifty cases of the fault harness, of all kinds, for CI; `make faults` plays thousands."""

from pathlib import Path

import pytest

from tests.support.faults.play import play_all, replay
from tests.support.faults.printed import printed_commands
from tests.support.faults.world import World

SEED = 20
COUNTS = {"kill": 16, "rest": 12, "flight": 10, "errno": 8, "attempts": 3, "namespace": 1}


@pytest.mark.slow  # whole runs, again and again
def test_fifty_faults_end_like_the_undisturbed_run(tmp_path: Path) -> None:
    names = [f"{kind}-{i}" for kind, count in COUNTS.items() for i in range(count)]
    with World(tmp_path / "world") as world:
        results = play_all(world, names, SEED, at_a_time=3)
    assert {replay(result.case, SEED): result.failures for result in results if result.failures} == {}
    assert len(results) == 50
    assert sum(result.facts.get("hit", 0) for result in results) > 10


def test_a_refusal_is_followed_by_what_it_prints() -> None:
    text = "1 problems\nto fix it: rm /tmp/run/x\nto fix it: embedkit run --resume --run-name r --output-dir /tmp\n"
    assert printed_commands(text) == ["rm /tmp/run/x", "embedkit run --resume --run-name r --output-dir /tmp"]
    text = "they differ\nto accept: embedkit merge /tmp/r --allow-mixed\nto continue: embedkit embed /tmp/r\n"
    assert printed_commands(text) == ["embedkit embed /tmp/r"]
    assert printed_commands("plan.json: damaged") == []
