"""Names of groups on the map, their list and the note above the map, in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.embedkit.analysis.page.test_access import AXE, faults, needs_axe
from tests.support import browser
from tests.support.browser import until
from tests.support.made_page import made_groups, made_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

FINE, PER_COARSE, ROWS = 120, 10, 12
"""Fine groups, those in a coarse group, and rows of the smallest one. The first coarse group has the most rows."""
COARSE = FINE // PER_COARSE
LONG = "first of a name that is much too long for the map, and then its very end"
STRANGE = ["مرحبا بالعالم، نص", "数学、定理、证明", "👩‍👩‍👧‍👦👩‍👩‍👧‍👦 family", LONG, "<b>bold</b>"]
SIZES = [ROWS + (COARSE - group // PER_COARSE) for group in range(FINE)]
FINE_OF_ROW = np.repeat(np.arange(FINE, dtype=np.int32), SIZES)
OUTSIDE = 5
"""Rows in no group, the last ones."""
NAMES = "document.querySelectorAll('#names button')"
BOXES = f"""() => [...{NAMES}].map((e) => {{ const b = e.getBoundingClientRect();
return [b.left, b.top, b.right, b.bottom]; }})"""
POSITIONS = "Array.from(modules.main.session.selection.positions)"
PICKED = "[...(modules.main.session.state.picks.group ?? [])].sort((a, b) => a - b)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources; coarse groups on a grid, their fine groups around them."""
    rng = np.random.default_rng(0)
    middles = np.stack([np.arange(COARSE) % 4, np.arange(COARSE) // 4], axis=1) * 1.0
    of_fine = middles[np.arange(FINE) // PER_COARSE] + rng.uniform(-0.4, 0.4, size=(FINE, 2))
    xy = of_fine[FINE_OF_ROW] + rng.normal(0, 0.01, size=(len(FINE_OF_ROW), 2))
    xy = np.concatenate([xy, rng.uniform(0, 3, size=(OUTSIDE, 2))]).astype(np.float32)
    fine = np.concatenate([FINE_OF_ROW, np.full(OUTSIDE, -1, np.int32)])
    names = {
        "coarse": [f"large topic {group}" for group in range(COARSE)],
        "fine": [*STRANGE, *(f"detail {group}, of topic" for group in range(len(STRANGE), FINE))],
    }
    parents = {"coarse": [group // PER_COARSE for group in range(FINE)], "fine": list(range(FINE))}
    first = SIZES[0]  # the source "a" has the first fine group alone
    groups = made_groups(fine, names, parents, "a")
    return made_page(tmp_path_factory.mktemp("names"), {"a": first, "b": len(fine) - first}, (), groups, xy)


def opened(chromium: Any, page: Path, link: str = "", width: int = 1300, **options: Any) -> Any:
    return browser.opened(chromium, page, link, viewport={"width": width, "height": 900}, **options)


def ready(tab: Any) -> None:
    tab.wait_for_selector("#stage[data-all]", state="attached", timeout=30_000)
    until(tab, f"{NAMES}.length > 0")


@pytest.fixture
def tab(chromium: Any, page: Path) -> Iterator[Any]:
    with opened(chromium, page) as tab:
        ready(tab)
        yield tab


def middle_of(tab: Any, name: str) -> tuple[float, float]:
    """The middle of a name on the map, in pixels of the window."""
    box = tab.get_by_role("button", name=f"{name}, ").first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def rows_of(fine: range | list[int]) -> list[int]:
    return np.flatnonzero(np.isin(FINE_OF_ROW, list(fine))).tolist()


@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_no_two_names_overlap_at_any_zoom(chromium: Any, page: Path, width: int) -> None:
    with opened(chromium, page, width=width) as tab:
        ready(tab)
        seen = set()
        for zoom in (0.6, 1, 1.7, 2.6, 7):
            tab.evaluate(f"modules.main.session.update({{ at: [0.4, 0.45, {zoom}] }})")
            tab.wait_for_timeout(150)
            boxes = np.array(tab.evaluate(BOXES))
            assert 0 < len(boxes) <= 60
            seen.add(len(boxes))
            # Measured text may be a pixel wider than the box that the layout has for it.
            apart = (boxes[:, None, :2] > boxes[None, :, 2:] - 1) | (boxes[None, :, :2] > boxes[:, None, 2:] - 1)
            assert (apart.any(axis=2) | np.eye(len(boxes), dtype=bool)).all(), zoom
        assert len(seen) > 1


def test_coarse_names_when_far_out_and_fine_ones_when_near(tab: Any) -> None:
    def prefixes(zoom: float) -> set[str]:
        tab.evaluate(f"modules.main.session.update({{ at: [0.5, 0.5, {zoom}] }})")
        tab.wait_for_timeout(150)
        return {text.split()[0] for text in tab.locator("#names button").all_inner_texts()}

    for zoom in (1, 1.8, 0.5):
        assert prefixes(zoom) == {"large"}
    near = prefixes(2.2)  # 120 names have room from a zoom of 2 on
    assert "detail" in near
    assert "large" not in near


def test_a_click_on_a_name_selects_its_rows_and_a_second_clears(tab: Any) -> None:
    tab.mouse.click(*middle_of(tab, "large topic 2"))
    assert tab.evaluate(POSITIONS) == rows_of(range(20, 30))
    assert tab.inner_text("#chosen").startswith(f'{len(rows_of(range(20, 30)))} rows with group "large topic 2"')
    assert tab.locator("#names [aria-pressed=true]").all_inner_texts() == ["large topic 2"]
    assert tab.locator("#group-tree [aria-pressed=true] .name").all_inner_texts() == ["large topic 2"]
    assert tab.evaluate("modules.main.session.state.row") is None  # the point below it is not opened
    tab.mouse.click(*middle_of(tab, "large topic 3"))
    assert tab.evaluate(POSITIONS) == rows_of(range(30, 40))
    tab.mouse.click(*middle_of(tab, "large topic 3"))
    assert tab.evaluate("modules.main.session.selection.active") is False


def test_a_drag_from_a_name_moves_the_map_and_the_names(tab: Any) -> None:
    x, y = middle_of(tab, "large topic 5")
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 60, y + 30, steps=5)
    tab.mouse.up()
    tab.wait_for_timeout(100)
    assert middle_of(tab, "large topic 5") == pytest.approx((x + 60, y + 30), abs=1.5)
    assert tab.evaluate("modules.main.session.selection.active") is False


def test_hovering_over_a_name_tells_of_its_group(tab: Any) -> None:
    tab.mouse.move(*middle_of(tab, "large topic 0"))
    text = tab.inner_text("#tip")
    assert text.split("\n")[0] == "large topic 0"
    assert f"{sum(SIZES[:PER_COARSE])} rows: a 100 %" in text
    assert "For example: the row 0 of it" in text
    tab.mouse.move(20, 20)
    assert not tab.is_visible("#tip")


def test_names_are_one_tab_stop_and_enter_selects(tab: Any) -> None:
    tab.focus("#points")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.closest('#names') !== null")
    before = tab.evaluate("document.activeElement.textContent")
    assert tab.is_visible("#tip")
    tab.keyboard.press("ArrowDown")
    name = tab.evaluate("document.activeElement.textContent")
    assert name != before
    tab.keyboard.press("Enter")
    group = int(name.split()[-1])
    assert tab.evaluate(PICKED) == list(range(PER_COARSE * group, PER_COARSE * (group + 1)))
    assert tab.evaluate("document.activeElement.textContent") == name
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.closest('#names')") is None


def test_only_groups_with_shown_rows_have_names(tab: Any) -> None:
    """The source "a" has the first fine group only, so without "b" nothing else is there."""
    tab.evaluate("modules.main.session.update({ hidden: new Set([1]) })")
    until(tab, f"{NAMES}.length === 1")
    assert tab.inner_text("#names button") == "large topic 0"
    assert tab.get_attribute("#names button", "aria-label") == f"large topic 0, {SIZES[0]} rows"


def test_the_switch_takes_names_away_and_a_link_restores_it(chromium: Any, page: Path, tab: Any) -> None:
    tab.uncheck("#show-names")
    until(tab, "document.querySelector('#names').hidden")
    assert not tab.is_visible("#contours")
    tab.click("#close-intro")
    tab.locator(".pick:visible").nth(1).click()
    wanted = tab.evaluate(POSITIONS)
    tab.wait_for_timeout(250)
    with opened(chromium, page, tab.evaluate("location.hash")) as other:
        other.wait_for_selector("#stage[data-ready]", timeout=30_000)
        assert other.is_hidden("#names")
        assert other.is_hidden("#intro")
        assert not other.is_checked("#show-names")
        assert other.evaluate(POSITIONS) == wanted == rows_of(range(10, 20))
        assert other.locator("#group-tree [aria-pressed=true]").count() == 1


def test_the_list_has_the_tree_and_goes_to_a_group(tab: Any) -> None:
    lines = tab.locator("#group-tree > li")
    assert lines.count() == COARSE
    assert lines.first.locator(".pick").first.inner_text().split("\n") == [
        "large topic 0",
        f"{sum(SIZES[:PER_COARSE])}",
    ]
    lines.nth(4).locator(".toggle").click()
    names = lines.nth(4).locator("ul .name").all_inner_texts()
    assert sorted(names) == sorted(f"detail {group}, of topic" for group in range(40, 50))
    lines.nth(4).locator("ul .pick").first.click()
    assert tab.evaluate(POSITIONS) == rows_of([40])
    # All of its rows are in the window, and near its middle.
    where = tab.evaluate(
        f"""{POSITIONS}.map((i) => {{ const {{ session, map }} = modules.main, {{ width, height }} = map.viewport();
        const [x, y] = map.toScreen(session.rows.x[i], session.rows.y[i]); return [x / width, y / height]; }})"""
    )
    assert (np.abs(np.array(where) - 0.5) < 0.5).all()
    assert tab.evaluate("modules.main.map.viewport().zoom") > 4


def test_the_filter_opens_groups_with_a_match(tab: Any) -> None:
    tab.fill("#group-filter", "DETAIL 57,")
    assert tab.locator(".pick:visible .name").all_inner_texts() == ["large topic 5", "detail 57, of topic"]
    tab.fill("#group-filter", "topic 11")
    assert tab.locator(".pick:visible .name").all_inner_texts() == ["large topic 11"]
    tab.fill("#group-filter", "")
    assert tab.locator(".pick:visible").count() == COARSE


def test_the_list_is_one_tab_stop_with_arrow_keys(tab: Any) -> None:
    focused = "document.activeElement.closest('li').querySelector('.name').textContent"
    tab.focus("#group-filter")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.closest('#group-tree') !== null")
    seen = []
    for key in ("ArrowDown", "ArrowDown", "End", "Home"):
        tab.keyboard.press(key)
        seen.append(tab.evaluate(focused))
    assert seen == ["large topic 1", "large topic 2", f"large topic {COARSE - 1}", "large topic 0"]
    tab.keyboard.press("Space")
    assert tab.evaluate(PICKED) == list(range(PER_COARSE))


def test_swatches_of_the_list_have_the_colours_of_groups(tab: Any) -> None:
    swatch = "document.querySelector('#group-tree .swatch').style.background"
    assert tab.evaluate(swatch) == ""
    tab.select_option("#colour", "group")
    assert tab.evaluate(swatch).count("rgb") >= 2


def test_the_note_says_what_the_map_is_and_selects_groups(tab: Any) -> None:
    text = tab.inner_text("#intro")
    assert f"Each point is one of {len(FINE_OF_ROW) + OUTSIDE:,} rows from 2 sources." in text
    assert f"The largest of {COARSE} groups:" in text
    tab.locator("#intro .largest button").nth(1).click()
    assert tab.evaluate(POSITIONS) == rows_of(range(10, 20))
    assert "Worth reading" not in text  # this page has no such tab
    tab.keyboard.press("Tab")
    tab.click("#close-intro")
    assert not tab.is_visible("#intro")
    assert tab.evaluate("document.activeElement.id") == "points"


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_note_leaves_the_map_in_the_first_window(chromium: Any, page: Path, width: int, height: int) -> None:
    with browser.opened(chromium, page, viewport={"width": width, "height": height}) as tab:
        ready(tab)
        box = tab.locator("#stage").bounding_box()
        assert tab.is_visible("#intro")
        assert box["y"] + box["height"] <= height
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_names_of_any_script_and_length(tab: Any) -> None:
    places = tab.evaluate("modules.groups.levelsOf(0)[1].places")
    short = "first of a name that is…ts very end"
    for group, name in enumerate(STRANGE):
        tab.evaluate(f"modules.main.session.update({{ at: [{places[group][0]}, {places[group][1]}, 100] }})")
        tab.wait_for_timeout(150)
        button = tab.locator("#names button", has_text=short if name == LONG else name)
        assert button.get_attribute("dir") == "auto"
        assert button.get_attribute("title") == (LONG if name == LONG else None)
    assert tab.locator("#names b, #group-tree b").count() == 0


def test_a_name_is_cut_in_its_middle_between_characters(tab: Any) -> None:
    cut = "([name, length]) => modules.short_name.shortName(name, length)"
    assert tab.evaluate(cut, ["abcdefghij", 10]) == "abcdefghij"
    assert tab.evaluate(cut, ["abcdefghijk", 10]) == "abcdef…ijk"
    family = "👩‍👩‍👧‍👦"
    assert tab.evaluate(cut, [family * 9, 4]) == f"{family * 2}…{family}"
    assert tab.evaluate(cut, [family * 4, 4]) == family * 4


def test_density_lines_fade_as_one_zooms_in(tab: Any) -> None:
    assert tab.locator("#contours path").count() > 0
    for zoom, opacity in ((1, 1), (2.25, 0.5)):
        tab.evaluate(f"modules.main.session.update({{ at: [0.5, 0.5, {zoom}] }})")
        until(tab, f"Math.abs(document.querySelector('#contours').style.opacity - {opacity}) < 0.01")
    tab.evaluate("modules.main.session.update({ at: [0.5, 0.5, 4] })")
    until(tab, "document.querySelector('#contours').hasAttribute('hidden')")


def test_components_have_names_at_the_medians_of_their_rows(tab: Any) -> None:
    tab.evaluate("modules.main.session.update({ map: 'pc' })")
    until(tab, "modules.main.session.rows?.map === 'pc'")
    places, x = tab.evaluate(
        "(() => { const { rows } = modules.main.session, [level] = modules.groups.levelsOf(0);"
        "return [modules.groups.placesOf(rows, level), Array.from(rows.x)]; })()"
    )
    assert places[2][0] == pytest.approx(np.median(np.array(x)[rows_of(range(20, 30))]), abs=0.02)
    until(tab, f"{NAMES}.length > 0")
    assert not tab.is_visible("#contours")


def test_a_page_without_groups_has_no_names_and_no_list(chromium: Any, tmp_path: Path) -> None:
    page = made_page(tmp_path, {"a": 20})
    with opened(chromium, page) as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        assert not any(tab.is_visible(each) for each in ("#names", "#groups", "#show-names", ".largest"))
        assert "20 rows from 1 source." in tab.inner_text("#intro")


@pytest.mark.parametrize("count", [1, 2000])
def test_one_group_and_two_thousand_groups(chromium: Any, tmp_path: Path, count: int) -> None:
    fine = np.arange(6000, dtype=np.int32) % count
    levels = ("coarse", "middle", "fine")
    names = [f"the group {group} of many" for group in range(count)]
    groups = made_groups(fine, dict.fromkeys(levels, names), {level: list(range(count)) for level in levels}, "a")
    xy = np.random.default_rng(0).uniform(size=(6000, 2)).astype(np.float32)
    with opened(chromium, made_page(tmp_path, {"a": 6000}, (), groups, xy)) as tab:
        ready(tab)
        assert 0 < tab.evaluate(f"{NAMES}.length") <= min(count, 60)
        assert tab.locator("#group-tree > li").count() == count
        tab.mouse.click(*middle_of(tab, tab.locator("#names button").first.inner_text()))
        assert len(tab.evaluate(POSITIONS)) == 6000 // count


@needs_axe
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_on_names_list_and_note(chromium: Any, page: Path, width: int, theme: str) -> None:
    with opened(chromium, page, width=width, color_scheme=theme, bypass_csp=True) as tab:
        ready(tab)
        tab.add_script_tag(path=AXE)
        tab.evaluate("document.querySelector('#groups').open = true")
        tab.locator("#group-tree .toggle").first.click()
        tab.mouse.click(*middle_of(tab, "large topic 2"))
        assert faults(tab) == []
