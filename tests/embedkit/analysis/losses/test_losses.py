"""Losses of an analysis: of all sources or of some, and in one object for health.json."""

from pathlib import Path

import pytest

from embedkit.analysis.losses import find_losses
from embedkit.analysis.merged import Merged, open_merged
from tests.conftest import chat, write_chats
from tests.support.chosen_run import run_of_file

GOOD, LONG = chat("a river", "a stone"), chat("a river", "stone " * 100)
PLANTED = [*[("math/a", GOOD)] * 9, ("math/a", LONG), *[("math/B", LONG)] * 3, ("code", GOOD), ("code", LONG)]


@pytest.fixture
def lossy(tmp_path: Path) -> Merged:
    """math/a lost 1 of 10, math/B 3 of 3, code 1 of 2."""
    data = write_chats(tmp_path / "chats.parquet", [chat for _, chat in PLANTED], [source for source, _ in PLANTED])
    return open_merged(run_of_file(tmp_path, data, max_length=50))


def test_the_summary_has_sums_and_the_worst_sources(lossy: Merged) -> None:
    assert find_losses(lossy).summary() == {
        "chosen": 15,
        "kept": 10,
        "dropped": 5,
        "share_dropped": 1 / 3,
        "reasons": {"no_assistant": 0, "empty": 0, "too_long": 5, "not_a_chat": 0, "not_text": 0},
        "sources": 3,
        "sources_over_a_tenth": 2,
        "sources_without_rows": 1,
        "worst": [
            {"dataset_source": "math/B", "chosen": 3, "kept": 0, "dropped": 3, "share_dropped": 1.0}
            | {"reasons": {"too_long": 3}},
            {"dataset_source": "code", "chosen": 2, "kept": 1, "dropped": 1, "share_dropped": 0.5}
            | {"reasons": {"too_long": 1}},
        ],
    }


def test_some_sources_include_those_that_are_gone(lossy: Merged) -> None:
    some = open_merged(lossy.run, sources=["MATH"])
    assert some.sources == ("math/a",)
    assert find_losses(some, only=["MATH"]).table["dataset_source"].to_list() == ["math/B", "math/a"]
    none = find_losses(some, only=["nothing"])
    assert (none.table.height, none.summary()["share_dropped"]) == (0, None)
