"""The page of compare: a row of one run is opened on the map of the other one, where it has a different id."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from embedkit.analysis.stage import analyze
from embedkit.compare.aligned import align_runs, align_views
from embedkit.compare.two_maps import runs_without_page, two_maps
from embedkit.run import RunFolder
from tests.conftest import embedkit
from tests.embedkit.analysis.page.test_page import NO_MAP
from tests.embedkit.analysis.page.test_two_maps import SESSION, halves, row, selected
from tests.embedkit.analysis.page.test_two_maps_file import decoded
from tests.support import browser
from tests.support.browser import until
from tests.support.chosen_run import Row, chosen_run
from tests.support.served import add_page

ROWS = 12
NASTY = "b#1 %"
needs_browser = pytest.mark.skipif(
    browser.program() is None, reason="there is no Chromium here; `make browser` installs it"
)


def two_runs(folder: Path) -> tuple[RunFolder, RunFolder]:
    """The second run has the rows in reverse, one more and one less, in a folder whose name is no URL."""
    rows = [Row(f"question {i} of the river", f"answer {i}", think=f"thought {i}") for i in range(ROWS)]
    others = [*reversed(rows[1:]), Row("new", "row")]
    return chosen_run(folder / "a", rows, views=("combined", "response")), chosen_run(folder / NASTY, others)


def paged(run: RunFolder) -> RunFolder:
    """Give a run a page of other rows, and a file where two maps are."""
    add_page(run)
    run.two_maps_page.write_text("two maps", encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder]:
    one, other = two_runs(tmp_path_factory.mktemp("compared"))
    return paged(one), paged(other)


def attributes(page: str, name: str) -> list[str]:
    return [part.split('"')[0] for part in page.split(f'{name}="')[1:3]]


def test_the_page_has_both_runs_and_their_ids(runs: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    one, other = runs
    pair = align_runs(one, other, "combined", "combined")
    page = two_maps(pair, one.path.parent.parent / "out")
    assert attributes(page, "data-page") == ["../a/run/analysis/index.html", "../b%231%20%25/run/analysis/index.html"]
    assert attributes(page, "data-link") == ["view=combined&amp;intro=false"] * 2
    assert decoded(page, "left") == list(range(1, ROWS))
    assert decoded(page, "right") == list(range(ROWS - 2, -1, -1))


def test_two_views_have_the_same_ids(runs: tuple[RunFolder, RunFolder]) -> None:
    run = runs[0]
    page = two_maps(align_views(run, "combined", "response"), run.path.parent)
    assert attributes(page, "data-page") == ["run/analysis/index.html"] * 2
    assert attributes(page, "data-link") == ["view=combined&amp;intro=false", "view=response&amp;intro=false"]
    assert "data-left" not in page.split("<script>")[0]


def test_a_run_compared_with_itself_needs_no_ids(runs: tuple[RunFolder, RunFolder]) -> None:
    page = two_maps(align_runs(runs[0], runs[0], "combined", "response"), runs[0].path.parent)
    assert "data-left" not in page.split("<script>")[0]


def test_a_page_of_an_earlier_version_cannot_be_linked(runs: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(runs[0].path, run.path)
    pair = align_views(run, "combined", "response")
    assert runs_without_page(pair) == []
    run.two_maps_page.unlink()
    assert runs_without_page(pair) == [run]
    both = align_runs(runs[1], run, "combined", "combined")
    assert runs_without_page(both) == [run]
    shutil.rmtree(run.analysis)
    assert runs_without_page(both) == [run]


def test_compare_writes_the_page_if_both_have_one(runs: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    """Without one, it says what to type, and leaves no page of an earlier comparison."""
    one, other = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "other")
    for run, copy in zip(runs, (one, other), strict=True):
        shutil.copytree(run.path, copy.path)
    out = tmp_path / "out"
    printed = embedkit("compare", one.path, other.path, "--out", out).stdout.splitlines()
    assert printed[-2:] == [f"written: {out}", f"two maps: {out / 'index.html'}"]
    names = {"compare.json", "compared.parquet", "moved.txt"}
    assert {path.name for path in out.iterdir()} == names | {"index.html"}
    other.two_maps_page.unlink()
    printed = embedkit("compare", one.path, other.path, "--out", out).stdout.splitlines()
    assert printed[-1].startswith("no two maps: other has no page")
    assert printed[-1].endswith(f"embedkit analyze {other.path}")
    assert {path.name for path in out.iterdir()} == names


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two runs that are analyzed."""
    folder = tmp_path_factory.mktemp("in-browser")
    runs = two_runs(folder)
    for run in runs:
        analyze(run, NO_MAP)
    embedkit("compare", runs[0].path, runs[1].path, "--out", folder / "out")
    return folder / "out" / "index.html"


@pytest.mark.slow
@needs_browser
def test_a_row_is_opened_under_its_other_id(chromium: Any, compared: Path) -> None:
    with browser.opened(chromium, compared) as tab:
        two = halves(tab)
        two.left.evaluate("modules.main.map.open(3)")
        until(two.right, f"{SESSION}.state.row === 8")
        assert "question 3 of" in two.right.inner_text("#row")
        two.right.evaluate("modules.main.map.open(0)")
        until(two.left, f"{SESSION}.state.row === 11")
        assert "question 11 of" in two.left.inner_text("#row")


@pytest.mark.slow
@needs_browser
def test_a_row_of_one_run_closes_the_other(chromium: Any, compared: Path) -> None:
    with browser.opened(chromium, compared) as tab:
        two = halves(tab)
        two.left.evaluate("modules.main.map.open(3)")
        until(two.right, f"{SESSION}.state.row === 8")
        two.left.evaluate("modules.main.map.open(0)")
        until(two.right, f"{SESSION}.state.row === null")
        assert row(two.left) == 0
        assert tab.inner_text("#note") == "The row with id 0 of the left map is not on the other one."
        two.right.evaluate("modules.main.map.open(11)")
        until(two.left, f"{SESSION}.state.row === null")
        assert row(two.right) == 11
        assert tab.inner_text("#note") == "The row with id 11 of the right map is not on the other one."
        two.right.evaluate("modules.main.map.open(0)")
        until(two.left, f"{SESSION}.state.row === 11")
        assert tab.inner_text("#note") == ""


@pytest.mark.slow
@needs_browser
def test_selected_rows_have_their_other_ids(chromium: Any, compared: Path) -> None:
    with browser.opened(chromium, compared) as tab:
        two = halves(tab)
        two.right.evaluate("modules.main.map.selectInView()")
        until(two.left, f"{SESSION}.selection.active")
        assert selected(two.left) == list(range(1, ROWS))
        two.left.fill("#search", '"question 3"')
        until(two.right, f"{SESSION}.selection.positions.length === 1")
        assert (selected(two.left), selected(two.right)) == ([3], [8])
