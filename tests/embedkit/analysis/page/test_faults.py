"""Faults that the page once had: what a person then saw must not come back."""

import csv
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from embedkit.analysis.stage import analyze
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.embedkit.analysis.page.test_page import NO_MAP, Look
from tests.support import browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

ROWS = 40
FORMULA = "=1+1"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESK = {"viewport": {"width": 1300, "height": 900}}


@pytest.fixture(scope="module")
def run(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Every row has two turns. The name of a source is a formula."""
    folder = tmp_path_factory.mktemp("faults")
    chats = [chat(f"prompt {i} of {i % 7}", f"answer {i * i}") for i in range(ROWS)]
    data = write_chats(folder / "chats.parquet", chats, [(FORMULA, "plain")[i % 2] for i in range(ROWS)])
    embedkit("run", *hash_request(data, tokenizer_only, folder), "--shards", 1)
    made = RunFolder(folder / "run")
    analyze(made, NO_MAP)
    return made


def opened(chromium: Any, run: RunFolder, link: str = "", **options: Any) -> AbstractContextManager[Any]:
    return browser.opened(chromium, run.analysis / "index.html", link, **{**DESK, **options})


def ready(tab: Any) -> None:
    tab.wait_for_selector("#stage[data-ready]", timeout=30_000)


def test_escape_closes_the_row_wherever_the_focus_is(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run, "#row=3") as tab:
        ready(tab)
        tab.wait_for_selector("#row h2")
        tab.focus("#inview")
        tab.keyboard.press("Escape")
        assert not tab.is_visible("#row")


def test_home_and_end_open_the_first_and_last_tab(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        ready(tab)
        tab.focus("#tab-map")
        tab.keyboard.press("End")
        assert tab.locator("[role=tab]").last.get_attribute("aria-selected") == "true"
        tab.keyboard.press("Home")
        assert tab.locator("[role=tab]").first.get_attribute("aria-selected") == "true"


def test_a_double_click_on_a_point_opens_no_row(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        tab.mouse.dblclick(*look.places()[look.lonely(1)[0]])
        tab.wait_for_timeout(700)  # longer than a click waits for a second one
        assert not tab.is_visible("#row")
        assert "at=" in tab.evaluate("location.hash")  # it has zoomed


@pytest.mark.parametrize(("options", "shift"), [(PHONE, False), (DESK, True)])
def test_shift_is_advised_only_where_there_are_keys(
    chromium: Any, run: RunFolder, options: dict[str, Any], shift: bool
) -> None:
    with opened(chromium, run, **options) as tab:
        ready(tab)
        assert ("Shift" in tab.inner_text(".hint")) == shift


def test_the_scree_begins_at_one_and_its_right_axis_is_even(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        ready(tab)
        panel = browser.open_tab(tab, "Principal components")
        tab.wait_for_selector(f"{panel} .y2tick text")
        scree = tab.locator(f"{panel} .figure", has=tab.locator(".y2tick")).first
        components = [float(text) for text in scree.locator(".xtick text").all_text_contents()]
        assert min(components) >= 1
        shares = [int(text.removesuffix("%")) for text in scree.locator(".y2tick text").all_text_contents()]
        assert shares == [0, 20, 40, 60, 80, 100]


@pytest.mark.parametrize("options", [PHONE, DESK])
def test_the_colour_ramp_does_not_move_the_map(chromium: Any, run: RunFolder, options: dict[str, Any]) -> None:
    with opened(chromium, run, **options) as tab:
        ready(tab)
        before = tab.locator("#points").bounding_box()
        tab.select_option("#colour", "tokens")
        tab.wait_for_selector("#ramp:visible")
        assert tab.locator("#points").bounding_box() == before


def test_the_ramp_of_equal_turns_has_one_number(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        ready(tab)
        tab.select_option("#colour", "turns")
        tab.wait_for_selector("#ramp:visible")
        numbers = [word for word in tab.inner_text("#ramp").split() if word.isdigit()]
        assert len(numbers) == len(set(numbers)) == 1


def test_no_saved_cell_begins_with_an_equals_sign(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        ready(tab)
        tab.click("#inview")
        with tab.expect_download() as download:
            tab.click("#csv")
        with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
            cells = [cell for line in csv.reader(file) for cell in line]
        assert cells.count(f"'{FORMULA}") == ROWS / 2
        assert not [cell for cell in cells if cell.startswith("=")]
