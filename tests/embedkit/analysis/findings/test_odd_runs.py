"""Runs with almost nothing in them, plain text, other views and layouts: findings or none, and never an error."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.findings import Evidence, Findings, as_text, find_findings
from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.texts import text_facts
from embedkit.prepare import DROPPED_SCHEMA
from tests.support.chosen_run import DIM, Row, chosen_run, run_of_file
from tests.support.planted import plant
from tests.support.small_run import small_embedded_run, small_run, small_sharded_run
from tests.support.strange_rows import naive_neighbors

__all__ = ["small_embedded_run", "small_run", "small_sharded_run"]  # fixtures


def find_all(merged: Merged) -> Findings:
    """Findings with all the evidence that every run has, and none of it strange."""
    vectors = np.array(merged.vectors(merged.ids))
    doubted = pl.DataFrame(schema={"id": pl.Int64, "p_own": pl.Float32, "predicted": pl.String})
    evidence = Evidence(
        text_facts(merged),
        neighbors=naive_neighbors(vectors),
        unknown=np.zeros(merged.rows.height, np.int32),
        dropped=pl.DataFrame(schema=DROPPED_SCHEMA),
        doubted=doubted,
    )
    found = find_findings(merged, evidence)
    assert as_text(found)
    assert set(found.rows["id"]) <= set(merged.ids[merged.has_text].tolist())
    return found


@pytest.mark.parametrize("rows", [1, 2])
def test_runs_of_one_and_two_rows(tmp_path: Path, rows: int) -> None:
    found = find_all(open_merged(chosen_run(tmp_path, [Row("What is it?", "So."), Row("Where is it?", "No.")][:rows])))
    assert found.rows.height == 0
    assert set(found.counts.values()) == {0}


def test_a_view_without_any_text(tmp_path: Path) -> None:
    run = chosen_run(tmp_path, [Row("What is it?", "So."), Row("Where is it?", "No.")], views=("combined", "think"))
    found = find_all(open_merged(run, "think"))
    assert found.rows.height == 0
    assert found.skipped["long_thoughts"] == "no row has a think text"


def test_rows_without_a_text_take_part_in_nothing(tmp_path: Path) -> None:
    """Their empty texts are equal, and would be the largest group of duplicates."""
    rows = [Row(f"What is {i}? And what is not?", f"It is {i}.") for i in range(5)]
    rows += [Row("What is it, and where?", "So.", "since it is"), Row("What is it, and where?", "No.", "since it is")]
    found = find_all(open_merged(chosen_run(tmp_path, rows, views=("combined", "think")), "think"))
    assert {(line["kind"], line["id"]) for line in found.rows.to_dicts()} == {
        ("same_prompt", 5),
        ("exact_duplicates", 5),
    }


def test_all_vectors_equal_and_sources_of_one_row(tmp_path: Path) -> None:
    run = chosen_run(tmp_path, [Row(f"What is the number {i}?", f"It is {i}.", source=f"s{i}") for i in range(25)])
    plant(run, np.full((25, DIM), 1 / 8))
    found = find_all(open_merged(run))
    assert found.counts["outliers"] == found.counts["strangers"] == 0
    assert found.counts["contamination"] == 0  # a single row in another source is chance


def test_plain_text_has_no_prompts_and_answers(tmp_path: Path) -> None:
    data = tmp_path / "texts.parquet"
    texts = ["the same text", "the same text", "又是 🙂 مرحبا", "once more, and once more, and again. " * 30, ""]
    pl.DataFrame({"body": texts}).write_parquet(data)
    found = find_all(open_merged(run_of_file(tmp_path, data, text_columns=("body",))))
    assert {(line["kind"], line["id"]) for line in found.rows.to_dicts()} == {("exact_duplicates", 0), ("loops", 3)}
    assert found.skipped["same_prompt"] == found.skipped["same_answer"] == "plain text has no prompts and answers"
    assert found.text_names == {"user_prompt": "text"}


def test_a_view_of_the_user_is_compared_by_its_text(tmp_path: Path) -> None:
    rows = [Row("What is the first?", "One."), Row("What is the second?", "One."), Row("What is the third?", "Two.")]
    run = chosen_run(tmp_path, rows, views=("combined", "bold"), templates={"bold": "*{response_text}*"})
    found = find_all(open_merged(run, "bold"))
    (line,) = found.rows.to_dicts()
    assert (line["kind"], line["compared_ids"], line["view.bold"]) == ("exact_duplicates", [1], "*One.*")
    assert "view bold: *One.*" in as_text(found)


def test_texts_of_the_parts_are_read_too(tmp_path: Path) -> None:
    rows = [Row("What is it, and where is it?", "So it is."), Row("What is it, and where is it?", "Never.")]
    found = find_all(open_merged(chosen_run(tmp_path, rows, texts="none")))
    assert found.rows["reason"].to_list() == [
        'answers "So it is.", where row 1 answers "Never." to the same prompt, with 20% of the words in common'
    ]
    assert found.rows["response_text"].to_list() == ["So it is."]


def test_both_layouts_have_the_same_findings(request: pytest.FixtureRequest) -> None:
    one, two = (find_all(open_merged(request.getfixturevalue(name))) for name in ("small_run", "small_sharded_run"))
    assert one.rows.equals(two.rows)
    assert one.counts == two.counts
    assert as_text(one) == as_text(two)
