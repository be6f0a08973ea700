"""Everyone can use the page: axe-core finds nothing, and a keyboard reaches and uses every control."""

from pathlib import Path
from typing import Any

import pytest

from embedkit.run import RunFolder
from tests.conftest import ROOT, embedkit
from tests.embedkit.analysis.page.test_page import ROWS, made, until
from tests.support import browser

AXE = ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
WIDTHS = [390, 1440]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not here; `make browser` installs it with npm")

# What has the focus: its id or words, its place among all elements, and whether an outline shows it. The map's marks
# come and go, so they have no place.
FOCUS = """() => { const e = document.activeElement, style = getComputedStyle(e);
return e === document.body ? null : {
  name: e.id || e.innerText.trim(), tag: e.tagName, place: [...document.querySelectorAll(":not(svg *)")].indexOf(e),
  outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
}; }"""
# Controls that a person sees, in the order of the page. Of the tabs, one is reached by Tab and the others by arrows.
CONTROLS = """() => [...document.querySelectorAll("button, input, select, summary, a[href], canvas[tabindex]")]
.filter((e) => e.checkVisibility() && e.tabIndex >= 0 && !e.disabled && !e.closest("svg"))
.map((e) => [...document.querySelectorAll(":not(svg *)")].indexOf(e))"""


@pytest.fixture(scope="module")
def run(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with every part of the analysis."""
    folder = tmp_path_factory.mktemp("access")
    run = made(folder / "chats.parquet", tokenizer_only, folder)
    embedkit("analyze", run.path)
    return run


def titles(tab: Any) -> list[str]:
    return [str(each.get_attribute("data-tab")) for each in tab.locator("[role=tab]").all()]


def faults(tab: Any) -> list[str]:
    """What axe-core finds, contrast included: the rule and where."""
    found = tab.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
    nodes = [(rule["id"], node) for rule in found["violations"] for node in rule["nodes"]]
    return [f"{name}: {node['target']} {node['failureSummary']}" for name, node in nodes]


@needs_axe
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing(chromium: Any, run: RunFolder, width: int, theme: str) -> None:
    """On every tab with all of its tables open; on the map with a row, a search and a selection open."""
    look: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "color_scheme": theme}
    found: dict[str, list[str]] = {}
    # The page's policy runs no script except its own, so axe-core needs a browser that ignores the policy.
    with browser.opened(chromium, run.analysis / "index.html", "#row=3&q=river", bypass_csp=True, **look) as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        tab.add_script_tag(path=AXE)
        tab.wait_for_selector("#rows button")
        found["map with search and row"] = faults(tab)
        tab.click("#clear")
        tab.click("#inview")
        tab.wait_for_selector("#csv:visible")
        tab.keyboard.press("Escape")  # the open row covers the legend of a phone
        tab.hover("#sources label >> nth=0")
        found["map with area"] = faults(tab)
        for colour in ("tokens", "turns"):
            tab.select_option("#colour", colour)
            tab.wait_for_selector("#ramp:visible")
            found[f"map by {colour}"] = faults(tab)
        for title in titles(tab)[1:]:
            tab.click(f"[data-tab='{title}']")
            tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
            tab.wait_for_timeout(300)
            found[title] = faults(tab)
    assert {where: what for where, what in found.items() if what} == {}


def focused_by_tab(tab: Any) -> list[dict[str, Any]]:
    """What has the focus after each press of Tab, from the beginning of the page to its end."""
    tab.evaluate("() => { document.activeElement.blur(); getSelection().removeAllRanges(); }")
    tab.evaluate(
        "() => { document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex'); }"
    )
    stops: list[dict[str, Any]] = []
    while len(stops) < 400:
        tab.keyboard.press("Tab")
        stop = tab.evaluate(FOCUS)
        if stop is None or (stops and stop["place"] == stops[0]["place"]):
            return stops
        stops.append(stop)
    raise AssertionError(f"Tab does not leave {stops[-1]}")


def test_tab_reaches_every_control_and_leaves_it(chromium: Any, run: RunFolder) -> None:
    """On every tab, with a row open and rows selected on the map. The focus is visible wherever it is."""
    with browser.opened(chromium, run.analysis / "index.html", "#row=3&q=river") as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        tab.wait_for_selector("#rows button")
        for title in titles(tab):
            tab.evaluate(f"modules.main.session.update({{ tab: {title!r} }})")
            tab.wait_for_timeout(100)
            stops = focused_by_tab(tab)
            assert set(tab.evaluate(CONTROLS)) <= {stop["place"] for stop in stops}, title
            assert [stop for stop in stops if not stop["outlined"]] == [], title


def test_arrows_home_and_end_open_every_tab(chromium: Any, run: RunFolder) -> None:
    with browser.opened(chromium, run.analysis / "index.html") as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        all_titles = titles(tab)
        tab.focus("#tab-map")
        for at, title in enumerate(all_titles):
            assert tab.evaluate("document.activeElement.dataset.tab") == title
            assert tab.is_visible(f"#panel-{at or 'map'}")
            tab.keyboard.press("ArrowRight")
        tab.keyboard.press("Home")
        assert tab.is_visible("#panel-map")
        tab.keyboard.press("End")
        assert tab.is_visible(f"#panel-{len(all_titles) - 1}")
        tab.keyboard.press("ArrowLeft")
        assert tab.is_visible(f"#panel-{len(all_titles) - 2}")


def press(tab: Any, selector: str, key: str) -> None:
    """Give a control the focus and press a key, as someone does who has reached it with Tab."""
    tab.locator(selector).first.focus()
    tab.keyboard.press(key)


def test_every_control_of_the_map_works_by_keys(chromium: Any, run: RunFolder) -> None:
    with browser.opened(chromium, run.analysis / "index.html") as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        press(tab, "#points", "+")
        until(tab, "modules.main.map.viewport().zoom > 1")
        press(tab, "#fit", "Enter")
        until(tab, "modules.main.map.viewport().zoom === 1")
        press(tab, "#inview", "Enter")
        assert tab.inner_text("#chosen") == f"{ROWS} rows in view"
        press(tab, "#sources input", " ")  # hides a source
        until(tab, f"!document.querySelector('#chosen').innerText.startsWith('{ROWS} ')")
        press(tab, "#all", "Enter")
        until(tab, f"document.querySelector('#chosen').innerText.startsWith('{ROWS} ')")
        press(tab, "#rows button", "Enter")
        assert tab.inner_text("#row h2").startswith("Row with id ")
        tab.keyboard.press("Escape")
        assert not tab.is_visible("#row")
        press(tab, "#clear", "Enter")
        assert not tab.is_visible("#csv")
        tab.focus("#search")
        tab.keyboard.type("river")
        tab.wait_for_selector("#rows button")
        press(tab, "#facts summary", "Enter")
        assert tab.is_visible("#facts table")
        theme = "document.documentElement.dataset.theme"
        before = tab.evaluate(theme)
        press(tab, "#theme", " ")
        assert tab.evaluate(theme) != before


def test_a_link_of_a_table_opens_its_row_by_keys(chromium: Any, run: RunFolder) -> None:
    with browser.opened(chromium, run.analysis / "index.html", "#tab=Extremes") as tab:
        tab.wait_for_selector("#stage[data-ready]", state="attached", timeout=30_000)
        closed = "[role=tabpanel]:not([hidden]) details:not([open])"
        press(tab, f"{closed} summary", "Enter")
        link = tab.locator("[role=tabpanel]:not([hidden]) details[open] a").last
        id_ = link.inner_text()
        link.focus()
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#row h2:visible")
        assert tab.inner_text("#row h2") == f"Row with id {id_}"
