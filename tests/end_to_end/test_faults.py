"""Twelve cases of the fault harness, for CI; `make faults` plays hundreds."""

from pathlib import Path

import pytest

from tests.support.faults.__main__ import play_all
from tests.support.faults.world import World

pytestmark = pytest.mark.slow  # whole runs, again and again

SEED = 4


def test_a_dozen_kills_and_damaged_bytes_end_like_the_undisturbed_run(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    names = [f"kill-{i}" for i in range(6)] + [f"byte-{i}" for i in range(6)]
    results = play_all(world, names, SEED, jobs=2)
    assert {result.case: result.failures for result in results if result.failures} == {}
    assert len(results) == 12
    assert any(kill["killed"] for result in results for kill in result.facts.get("fell", []))
