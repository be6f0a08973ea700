"""The legend of many sources in a real browser: groups, filter, keys, and the row numbers of the panel."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import browser
from tests.support.made_page import made_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

SOURCES = {"logic-a": 4, "logic-b": 6, "logic_c": 5, "alone": 12, "single": 3, "math/one": 2, "math/two": 1}
"""In the order of the legend: logic of 15 rows, alone of 12, single and math of 3 each."""
FOCUSED = "document.activeElement.closest('li').querySelector('.name').textContent"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_page(tmp_path_factory.mktemp("legend"), SOURCES | {f"z{i}": 1 for i in range(6)})


@pytest.fixture
def tab(chromium: Any, page: Path) -> Iterator[Any]:
    with browser.opened(chromium, page, viewport={"width": 1300, "height": 900}) as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        yield tab


def hidden(tab: Any) -> set[str]:
    names = tab.evaluate(
        "[...modules.main.session.state.hidden].map((code) => modules.data.META.layers[0].sources[code])"
    )
    return set(names)


def test_sources_with_a_shared_prefix_are_a_group(tab: Any) -> None:
    entries = [name.split("\n")[0] for name in tab.locator("#sources > li .name").all_text_contents()]
    assert entries[:7] == ["logic", "logic-b", "logic_c", "logic-a", "alone", "math", "math/one"]
    assert tab.locator("#sources > .group").count() == 2
    assert tab.locator(".group > div .count").all_inner_texts() == ["3 sources, 15", "2 sources, 3"]


def test_the_box_of_a_group_is_for_all_its_sources(tab: Any) -> None:
    box = tab.locator(".group > div input").first
    box.uncheck()
    assert hidden(tab) == {"logic-a", "logic-b", "logic_c"}
    tab.locator("#sources li", has_text="logic-b").last.locator("input").check()
    assert box.evaluate("e => e.indeterminate")
    box.evaluate("e => e.click()")
    assert hidden(tab) == {"logic-a", "logic-b", "logic_c"}
    box.check()
    assert hidden(tab) == set()
    assert not box.evaluate("e => e.indeterminate")


def test_hovering_over_a_group_lights_all_its_sources(tab: Any) -> None:
    tab.locator(".group > div").first.hover()
    assert tab.evaluate("modules.main.map.scatter.lit") == 15
    tab.mouse.move(600, 400)
    assert tab.evaluate("modules.main.map.scatter.lit") is None


def test_a_group_closes_and_the_filter_opens_it(tab: Any) -> None:
    line = tab.locator(".group ul li").first
    tab.locator(".toggle").first.click()
    assert not line.is_visible()
    tab.fill("#filter", "ic-b")
    assert line.is_visible()
    assert tab.locator("#sources .name:visible").all_text_contents() == ["logic", "logic-b"]
    tab.click("#none")
    assert hidden(tab) == {"logic-b"}
    tab.fill("#filter", "")
    assert not line.is_visible()


def test_the_legend_is_one_tab_stop_with_arrow_keys(tab: Any) -> None:
    tab.focus("#filter")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.ariaLabel") == "sources of logic"
    stops = tab.evaluate("document.querySelectorAll('#sources :is(input, button):not([tabindex=\"-1\"])').length")
    assert stops == 1
    seen = []
    for key in ("ArrowDown", "ArrowDown", "End", "ArrowUp", "Home"):
        tab.keyboard.press(key)
        seen.append(tab.evaluate(FOCUSED))
    assert seen == ["logic-b", "logic_c", "z5", "z4", "logic"]
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Enter")
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate(FOCUSED) == "alone"
    tab.keyboard.press("Space")
    assert hidden(tab) == {"alone"}
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    assert "alone" not in hidden(tab)
    assert len(hidden(tab)) == len(SOURCES) + 5


def test_groups_of_hundreds_of_sources_begin_closed(chromium: Any, tmp_path: Path) -> None:
    page = made_page(tmp_path, {f"family{i % 20}-{i}": 2 for i in range(400)} | {"alone": 1})
    with browser.opened(chromium, page, viewport={"width": 1300, "height": 900}) as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        assert tab.locator("#sources li:visible").count() == 21
        tab.locator(".toggle").first.click()
        assert tab.locator("#sources li:visible").count() == 41


def test_panel_and_csv_have_the_position_in_the_data_set(tab: Any) -> None:
    tab.evaluate("modules.main.map.open(9)")
    tab.wait_for_selector("#row dt:text-is('row')")
    facts = dict(zip(tab.locator("#row dt").all_inner_texts(), tab.locator("#row dd").all_inner_texts(), strict=True))
    assert facts["row"] == "13"
    tab.focus("#points")
    tab.keyboard.press("v")
    with tab.expect_download() as download:
        tab.click("#csv")
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["row"]) for line in lines] == [i + i // 2 for i in range(len(lines))]
    assert len(lines) == sum(SOURCES.values()) + 6
