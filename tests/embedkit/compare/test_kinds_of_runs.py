"""compare and coverage of runs of every kind: views of the user, plain text, few texts, sources with odd names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embedkit.run import RunFolder
from tests.conftest import embedkit
from tests.support.chosen_run import DIM, Row, chosen_run, run_of_file
from tests.support.planted import plant

NAMES = ["=SUM(A1)", "数学/代数", "مصدر", "a, b", "🙂"]
"""Names of sources, by the last digit of a row's number."""
ROWS = 40
FRESH = [6, 11, 36]
"""Rows that the second run has other texts for, and vectors that are far from all others."""


def rows_of(fresh: str = "") -> list[Row]:
    """Rows with a thought in every second one. fresh: a word before the texts of FRESH."""
    return [
        Row(
            f"{fresh if at in FRESH else ''}What is {at}?",
            f"{fresh if at in FRESH else ''}It is so {at}.",
            think=f"{fresh if at in FRESH else ''}Let me see {at}" if at % 2 else "",
            source=NAMES[at % 5],
        )
        for at in range(ROWS)
    ]


def vectors_of(fresh: bool) -> np.ndarray:
    """Rows around one direction; those of FRESH around the opposite one."""
    vectors = np.eye(1, DIM) + 0.05 * np.random.default_rng(2).normal(size=(ROWS, DIM))
    if fresh:
        vectors[FRESH] *= -1
    return vectors


def answer(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(embedkit(*arguments, "--json").stdout)
    return found


VIEWS: dict[str, Any] = {
    "views": ("combined", "think", "response", "bold"),
    "templates": {"bold": "*{user_prompt}* {response_text}"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder]:
    """Two runs with the same rows but FRESH; the second one has its texts only in the parts. Read only."""
    made = []
    for name, fresh, options in (("a", "", {}), ("b", "fresh ", {"texts": "none", "shards": 2})):
        run = chosen_run(tmp_path_factory.mktemp(name), rows_of(fresh), **VIEWS, **options)
        plant(run, vectors_of(bool(fresh)), "bold")
        thoughts = vectors_of(bool(fresh))
        thoughts[::2] = 0
        plant(run, thoughts, "think")
        made.append(run)
    return made[0], made[1]


@pytest.mark.parametrize(
    ("view", "rows", "shown"), [("bold", 40, "*fresh What is 6?*"), ("think", 20, "fresh Let me see 11")]
)
def test_coverage_is_of_the_view(
    view: str, rows: int, shown: str, runs: tuple[RunFolder, RunFolder], tmp_path: Path
) -> None:
    """Rows without a thought take no part."""
    out = tmp_path / "out"
    found = answer("coverage", runs[0].path, runs[1].path, "--view", view, "--out", out)
    far = [at for at in FRESH if view == "bold" or at % 2]
    assert (found["rows_a"], found["rows_b"], found["in_both"], found["covered"]) == (
        rows,
        rows,
        *[rows - len(far)] * 2,
    )
    assert sorted(row["id"] for row in found["far"]) == far
    assert {row["source"] for row in found["far"]} == {NAMES[1]}
    text = (out / "far.txt").read_text(encoding="utf-8")
    assert f"     {shown}" in text
    assert "  row 6, =SUM" not in text
    table = pl.read_parquet(out / "coverage.parquet")
    assert table.filter(~pl.col("covered"))["id"].to_list() == far


@pytest.mark.parametrize(
    ("sources", "kept"), [("数学", [1]), ("a,🙂", [0, 3, 4]), ("=", [0]), ("/,مصد", [1, 2]), ("B", [3])]
)
def test_sources_with_odd_names_are_chosen(
    sources: str, kept: list[int], runs: tuple[RunFolder, RunFolder], tmp_path: Path
) -> None:
    """The part a is in two names: in =SUM(A1), since case does not count, and in the name with a comma."""
    chosen = sorted(NAMES[at] for at in kept)
    found = answer("coverage", runs[0].path, runs[1].path, "--view", "bold", "--sources", sources)
    assert sorted(one["source"] for one in found["sources"]) == chosen
    assert found["covered"] == found["in_both"] == 8 * len(kept) - 3 * (1 in kept)
    compared = answer("compare", runs[0].path, runs[1].path, "--view", "bold", "--sources", sources)
    assert [one["name"] for one in compared["sources"]] == chosen
    assert (compared["rows"], compared["only_a"]) == (8 * len(kept) - 3 * (1 in kept), 3 * (1 in kept))


def test_texts_in_both_did_not_move(runs: tuple[RunFolder, RunFolder]) -> None:
    found = answer("compare", runs[0].path, runs[1].path, "--view", "bold")
    assert (found["rows"], found["only_a"], found["only_b"]) == (37, 3, 3)
    assert (found["overlap"], found["moved"]) == (1, pytest.approx(0, abs=1e-6))
    assert found["cka"] == pytest.approx(1, abs=1e-6)


def test_two_views_are_compared_in_rows_with_both(runs: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    """Both have the same vectors, and only odd rows have thoughts."""
    found = answer("compare", runs[1].path, "--view", "think", "--with-view", "bold", "--out", tmp_path / "out")
    assert (found["rows"], found["only_a"], found["only_b"]) == (20, 0, 20)
    assert (found["overlap"], found["moved"]) == (1, pytest.approx(0, abs=1e-6))
    assert pl.read_parquet(tmp_path / "out" / "compared.parquet")["id_a"].to_list() == list(range(1, ROWS, 2))
    moved = answer("compare", runs[1].path, "--view", "think", "--with-view", "combined", "--rows", 3)["most_moved"]
    assert [row["text_a"][:11] for row in moved] == [
        "Let me see " if row["id_a"] not in FRESH else "fresh Let m" for row in moved
    ]
    assert all("What is" in row["text_b"] for row in moved)


def test_plain_text_without_stored_texts(tmp_path: Path) -> None:
    """The first run has its texts only in the parts; the second one repeats a text, and has one more."""
    texts = [f"又是 {at} 🙂 مرحبا" for at in range(8)]
    made = []
    for name, lines, options in (("a", texts, {"texts": "none"}), ("b", [*texts[::-1], texts[0], "new"], {})):
        (tmp_path / name).mkdir()
        pl.DataFrame({"body": lines}).write_parquet(tmp_path / name / "t.parquet")
        made.append(run_of_file(tmp_path / name, tmp_path / name / "t.parquet", text_columns=("body",), **options))
    found = answer("coverage", made[0].path, made[1].path, "--out", tmp_path / "covered")
    assert (found["rows_b"], found["in_both"]) == (10, 9)
    assert [row["text"] for row in found["far"]] == ["new"]
    assert found["far"][0]["nearest_text"] in texts
    compared = answer("compare", made[0].path, made[1].path, "--out", tmp_path / "compared")
    assert (compared["rows"], compared["only_a"], compared["only_b"]) == (8, 0, 1)
    table = pl.read_parquet(tmp_path / "compared" / "compared.parquet")
    assert table["id_b"].to_list() == [7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("command", ["compare", "coverage"])
@pytest.mark.parametrize(
    ("options", "message"),
    [(("--view", "nowhere"), "--view nowhere: the run has combined"), (("--sources", "zz"), "no source has that")],
)
def test_refusals_write_nothing(
    command: str, options: tuple[str, ...], message: str, runs: tuple[RunFolder, RunFolder], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    refused = embedkit(command, runs[0].path, runs[1].path, *options, "--out", out, code=2)
    assert message in refused.stderr
    assert not out.exists()
