"""diff in text: it fits 80 columns, its columns line up, and it says what could not be compared."""

import msgspec
import pytest

from embedkit.diff.schema import Difference, Group, ViewDifference, WorstRow
from embedkit.diff.text import compared, headline, lines
from embedkit.documents import Agreement


def group(name: str, rows: int, mean: float | None = 1.2e-05) -> Group:
    return Group(name=name, rows=rows, mean=mean, worst=mean, overlap=0.9996, queries=3)


AGREEMENT = Agreement(
    rows=400,
    mean=1e-4,
    worst=2.5e-3,
    noise=1.1e-5,
    apart=9e-5,
    bound=9.5e-5,
    length=1e-3,
    most_apart=8e-5,
    most_worst=2e-3,
    most_length=0.013,
)
VIEW = ViewDifference(
    view="combined",
    compared=400,
    only_a=1,
    only_b=2,
    quantiles={"min": 0.9975, "0.1 %": 0.998, "1 %": 0.999, "5 %": 0.9999, "50 %": 0.99991},
    mean_cosine=0.9999,
    mean_shift=1.2e-3,
    agreement=AGREEMENT,
    overlap=0.987,
    queries=2_000,
    overlap_rows=20_000,
    worst=(
        WorstRow(row=7, row_b=8, source="a source of ordinary length", tokens=12_345, distance=2.5e-3, text="x" * 200),
    ),
    deciles=(group("4 to 12 tokens", 100), group("13 to 32,768 tokens", 12_345_678)),
    sources=(group("short", 1, None), group("japanese_city_name_pronunciation", 399)),
)
FOUND = Difference(
    a="first",
    b="second",
    passed=False,
    problem="",
    dims=(64, 64),
    engines_a=(),
    engines_b=(),
    changes=(),
    views=(VIEW,),
)


def test_text_fits_80_columns_and_lines_up() -> None:
    shown = list(lines(FOUND))
    assert [line for line in shown if len(line) > 80] == []
    (table,) = (shown[at : at + 3] for at, line in enumerate(shown) if "by source" in line)
    assert {len(line) for line in table} == {79}
    assert table[1].split() == ["short", "1", "-", "-", "100.0", "%"]
    (numbers,) = (shown[at : at + 2] for at, line in enumerate(shown) if "cosine:  " in line)
    assert len(numbers[0]) == len(numbers[1])


def test_text_says_each_number_that_decides_and_whether_it_passes() -> None:
    shown = list(lines(FOUND))
    assert "  1 - cosine, mean (beside a noise of 1.1e-05 between batches): 9e-05" in shown
    assert "  1 - cosine, mean plus three standard errors: 9.5e-05, at most 8e-05: NO" in shown
    assert "  1 - cosine, largest: 0.0025, at most 0.002: NO" in shown
    assert "  difference of lengths, mean: 0.001, at most 0.013: yes" in shown
    assert "what differs: nothing (the same data, settings, model files and engine)" in shown


def test_texts_that_were_not_compared_are_counted() -> None:
    now = msgspec.structs.replace(FOUND, b="m, embedded here", rows=500, seed=3)
    assert compared(FOUND, VIEW) == "400 texts compared; 1 only in first, 2 only in second"
    assert compared(now, VIEW) == "400 texts compared; 1 are too long for m, embedded here"
    assert compared(now, msgspec.structs.replace(VIEW, only_a=0)) == "400 texts compared"
    assert list(lines(now))[1] == "500 rows were embedded here, of every source and length (seed 3)"


@pytest.mark.parametrize(
    ("passed", "problem", "line"),
    [
        (True, "", "within the tolerance: first and second"),
        (False, "", "NOT within the tolerance: first and second"),
        (False, "the runs have no text in common", "NOT within the tolerance: the runs have no text in common"),
    ],
)
def test_first_line_says_whether_both_agree(passed: bool, problem: str, line: str) -> None:
    assert headline(msgspec.structs.replace(FOUND, passed=passed, problem=problem)) == line
