"""Two maps side by side in a real browser, from disk: what is done on one of them happens on the other one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedkit.analysis.stage import analyze
from embedkit.run import RunFolder
from tests.embedkit.analysis.page.test_access import AXE, needs_axe
from tests.embedkit.analysis.page.test_page import NO_MAP, ROWS, made, made_with_views
from tests.support import browser
from tests.support.browser import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]
SESSION = "modules.main.session"
READY = "#stage[data-ready]"
# Counts what both maps send from now on.
COUNT = "() => { window.sent = 0; addEventListener('message', () => { window.sent += 1; }); }"


@pytest.fixture(scope="module")
def run(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with one view and no UMAP."""
    folder = tmp_path_factory.mktemp("two-maps")
    run = made(folder / "chats.parquet", tokenizer_only, folder)
    analyze(run, NO_MAP)
    return run


@pytest.fixture(scope="module")
def two_views(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return made_with_views(tokenizer_only, tmp_path_factory.mktemp("two-views"))


@dataclass(frozen=True)
class Two:
    """An open page with two maps."""

    tab: Any
    left: Any
    right: Any


def halves(tab: Any) -> Two:
    """Both maps, once all of their rows are there."""
    frames = [tab.query_selector(f"#{side}").content_frame() for side in ("left", "right")]
    for frame in frames:
        frame.wait_for_selector(READY, timeout=30_000)
    return Two(tab, *frames)


@contextmanager
def opened(chromium: Any, page: Path, **options: Any) -> Iterator[Two]:
    with browser.opened(chromium, page, **{"viewport": {"width": 1440, "height": 900}, **options}) as tab:
        yield halves(tab)


def row(frame: Any) -> Any:
    return frame.evaluate(f"{SESSION}.state.row")


def selected(frame: Any) -> list[int]:
    found: list[int] = frame.evaluate(f"[...{SESSION}.selection.positions].map((i) => {SESSION}.rows.ids[i])")
    return found


def test_a_row_is_open_in_both_maps(chromium: Any, run: RunFolder) -> None:
    """Opened left and closed right, opened right and closed left."""
    with opened(chromium, run.two_maps_page) as two:
        for one, other, id_ in ((two.left, two.right, 5), (two.right, two.left, 7)):
            one.evaluate(f"modules.main.map.open({id_})")
            until(other, f"{SESSION}.state.row === {id_}")
            assert other.inner_text("#row h2") == f"Row with id {id_}"
            other.click("#close")
            until(one, f"{SESSION}.state.row === null")
            assert not one.is_visible("#row")


def test_nothing_comes_back(chromium: Any, run: RunFolder) -> None:
    """One message for each change, from the map that was changed."""
    with opened(chromium, run.two_maps_page) as two:
        two.tab.evaluate(COUNT)
        for at, change in enumerate(["{ row: 5 }", "{ row: null }", "{ q: 'river' }", "{ theme: 'dark' }"], start=1):
            two.left.evaluate(f"{SESSION}.update({change})")
            two.tab.wait_for_timeout(300)
            assert two.tab.evaluate("sent") == at, change
        two.right.evaluate("modules.main.map.selectInView()")
        two.tab.wait_for_timeout(300)
        assert two.tab.evaluate("sent") == 5


def test_the_other_map_moves_to_the_row(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run.two_maps_page) as two:
        ends = "[...rows.ids].sort((a, b) => rows.x[rows.ids.indexOf(a)] - rows.x[rows.ids.indexOf(b)])"
        ids = two.right.evaluate(f"(() => {{ const {{ rows }} = {SESSION}; return {ends}; }})()")
        two.right.evaluate(
            f"(() => {{ const {{ rows }} = {SESSION}, i = rows.ids.indexOf({ids[0]}); "
            "modules.main.map.move(rows.x[i], rows.y[i], 12); })()"
        )
        two.left.evaluate(f"modules.main.map.open({ids[-1]})")
        until(two.right, f"{SESSION}.state.row === {ids[-1]}")
        inside = two.right.evaluate(
            f"(() => {{ const {{ rows }} = {SESSION}, {{ map }} = modules.main, i = rows.ids.indexOf({ids[-1]}); "
            "const [x, y] = map.toScreen(rows.x[i], rows.y[i]), { width, height } = map.viewport(); "
            "return x >= 0 && y >= 0 && x <= width && y <= height; })()"
        )
        assert inside


def test_a_search_is_made_in_both_maps(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run.two_maps_page) as two:
        two.left.fill("#search", "river")
        until(two.right, f"{SESSION}.selection.active")
        assert two.right.input_value("#search") == "river"
        assert selected(two.right) == selected(two.left) == list(range(0, ROWS - 2, 4))
        two.right.click("#clear")
        until(two.left, f"!{SESSION}.selection.active")
        assert two.left.input_value("#search") == ""


def test_selected_rows_are_selected_in_both_maps(chromium: Any, run: RunFolder) -> None:
    """Of an area, by a column, of both maps at once; until either map's `clear`."""
    with opened(chromium, run.two_maps_page) as two:
        two.left.evaluate("modules.main.map.move(0.2, 0.5, 2)")
        two.left.evaluate("modules.main.map.selectInView()")
        until(two.right, f"{SESSION}.selection.active")
        area = selected(two.left)
        assert 0 < len(area) < ROWS
        assert selected(two.right) == area
        assert two.right.inner_text("#chosen") == f"{len(area)} rows selected on the other map"
        lengths = two.right.evaluate(
            f"[...{SESSION}.rows.ids.map((_, i) => Number({SESSION}.rows.columns.get('tokens').text(i)))]"
        )
        least = sorted(lengths[i] for i in area)[len(area) // 2]
        two.right.evaluate(f"{SESSION}.update({{ ranges: {{ tokens: [{least}, null] }} }})")
        until(two.left, f"{SESSION}.linked !== null")
        both = [i for i in area if lengths[i] >= least]
        assert selected(two.left) == selected(two.right) == both
        assert two.left.inner_text("#chosen") == f"{len(both)} rows in view and selected on the other map"
        two.right.click("#clear")
        until(two.left, f"!{SESSION}.selection.active")
        assert not two.right.evaluate(f"{SESSION}.selection.active")


def test_hidden_sources_are_not_selected_elsewhere(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run.two_maps_page) as two:
        two.left.evaluate(f"{SESSION}.update({{ hidden: new Set([{SESSION}.rows.source[0]]) }})")
        two.left.evaluate("modules.main.map.selectInView()")
        until(two.right, f"{SESSION}.selection.active")
        assert selected(two.right) == selected(two.left)
        assert 0 not in selected(two.right)  # of the hidden source
        assert two.right.evaluate(f"{SESSION}.state.hidden.size") == 0


def test_a_map_that_loads_later_catches_up(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run.two_maps_page) as two:
        two.left.evaluate(f"{SESSION}.update({{ row: 9, q: 'lamp' }})")
        until(two.right, f"{SESSION}.state.row === 9")
        two.tab.evaluate("document.querySelector('#right').src = 'index.html?again#x=2'")
        two.tab.wait_for_timeout(1000)
        again = halves(two.tab)
        until(again.right, f"{SESSION}.state.row === 9 && {SESSION}.state.q === 'lamp'")
        again.right.click("#close")
        until(again.left, f"{SESSION}.state.row === null")


def test_both_maps_and_the_page_change_their_colours(chromium: Any, run: RunFolder) -> None:
    theme = "document.documentElement.dataset.theme"
    with opened(chromium, run.two_maps_page, color_scheme="light") as two:
        two.right.click("#theme")
        until(two.left, f"{theme} === 'dark'")
        assert two.tab.evaluate(theme) == "dark"
        assert two.tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "7",
        "'row'",
        "{}",
        "{ linked: null }",
        "{ linked: 3 }",
        "{ linked: { row: -1 } }",
        "{ linked: { row: 1.5 } }",
        "{ linked: { row: '3' } }",
        "{ linked: { row: 2 ** 32 } }",
        "{ linked: { ids: [1, 2] } }",
        "{ linked: { q: { a: 1 } } }",
        "{ linked: { theme: 'pink' } }",
        "{ linked: { area: 1, tab: 'x', constructor: 1 } }",
    ],
)
def test_data_of_another_kind_is_ignored(chromium: Any, run: RunFolder, data: str) -> None:
    with opened(chromium, run.two_maps_page) as two:
        before = two.left.evaluate(f"JSON.stringify({SESSION}.state)")
        two.tab.evaluate(f"document.querySelector('#left').contentWindow.postMessage({data}, '*')")
        two.left.evaluate(f"parent.postMessage({data}, '*')")
        two.tab.wait_for_timeout(200)
        assert two.left.evaluate(f"JSON.stringify({SESSION}.state)") == before
        assert row(two.right) is None


def test_messages_of_other_windows_are_ignored(chromium: Any, run: RunFolder) -> None:
    """Of a map to itself and to its sister, and of the page to itself."""
    message = "postMessage({ linked: { row: 3 } }, '*')"
    with opened(chromium, run.two_maps_page) as two:
        two.left.evaluate(message)
        two.left.evaluate(f"parent.frames[1].{message}")
        two.tab.evaluate(message)
        two.tab.wait_for_timeout(300)
        assert (row(two.left), row(two.right)) == (None, None)


def test_a_page_alone_links_to_two_maps(chromium: Any, run: RunFolder) -> None:
    with browser.opened(chromium, run.analysis_page) as tab:
        tab.wait_for_selector(READY, timeout=30_000)
        tab.click("text=two maps")
        two = halves(tab)
        assert tab.title() == "run: two maps"
        assert not two.left.is_visible("#two-maps")
        assert [frame.evaluate(f"{SESSION}.state.x") for frame in (two.left, two.right)] == [1, 3]


def test_two_views_are_shown_side_by_side(chromium: Any, two_views: RunFolder) -> None:
    """A row without a text in the other view is not on its map, which says so."""
    with opened(chromium, two_views.two_maps_page) as two:
        assert [frame.evaluate(f"{SESSION}.places.layer.view") for frame in (two.left, two.right)] == [
            "think",
            "response",
        ]
        two.left.evaluate("modules.main.map.open(7)")
        until(two.right, f"{SESSION}.state.row === 7")
        two.right.evaluate("modules.main.map.open(8)")
        until(two.left, f"{SESSION}.state.row === 8")
        assert "No row of this page has the id 8." in two.left.inner_text("#row")
        two.right.evaluate("modules.main.map.selectInView()")
        until(two.left, f"{SESSION}.selection.active")
        assert selected(two.left) == list(range(1, 20, 2))


def test_a_view_is_chosen_in_one_half_alone(chromium: Any, two_views: RunFolder) -> None:
    with opened(chromium, two_views.two_maps_page) as two:
        two.left.evaluate("modules.main.map.open(7)")
        two.right.select_option("#view", "think")
        until(two.right, f"{SESSION}.rows?.ids.length === 10")
        assert row(two.right) == 7
        assert two.left.evaluate(f"{SESSION}.places.layer.view") == "think"
        two.right.evaluate(f"{SESSION}.update({{ row: null }})")
        until(two.left, f"{SESSION}.state.row === null")


@pytest.mark.parametrize(("width", "height", "is_narrow"), [(1440, 900, False), (1024, 768, False), (390, 844, True)])
def test_both_maps_are_seen_at_once(chromium: Any, run: RunFolder, width: int, height: int, is_narrow: bool) -> None:
    """One beside the other, or on a phone one above the other; the open row does not cover the map."""
    with opened(chromium, run.two_maps_page, viewport={"width": width, "height": height}) as two:
        left, right = (two.tab.locator(f"#{side}").bounding_box() for side in ("left", "right"))
        assert right["y" if is_narrow else "x"] >= left["height" if is_narrow else "width"]
        assert right["x" if is_narrow else "y"] == left["x" if is_narrow else "y"]
        assert right["x"] + right["width"] <= width
        assert right["y"] + right["height"] <= height
        two.left.evaluate("modules.main.map.open(5)")
        until(two.right, f"{SESSION}.state.row === 5")
        for frame in (two.left, two.right):
            stage, panel = (frame.locator(each).bounding_box() for each in ("#stage", "#row"))
            assert stage["height"] > 120
            assert stage["y"] + stage["height"] <= panel["y"] or stage["x"] + stage["width"] <= panel["x"]
            assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")


@needs_axe
@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1440, "dark")])
def test_axe_finds_nothing_in_two_maps(chromium: Any, run: RunFolder, width: int, theme: str) -> None:
    look: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "color_scheme": theme, "bypass_csp": True}
    with opened(chromium, run.two_maps_page, **look) as two:
        two.left.evaluate(f"{SESSION}.update({{ row: 3, q: 'river' }})")
        until(two.right, f"{SESSION}.state.row === 3")
        for frame in (two.tab, two.left, two.right):
            frame.add_script_tag(path=AXE)
            found = frame.evaluate("axe.run(document, { resultTypes: ['violations'], iframes: false })")
            assert [(rule["id"], node["target"]) for rule in found["violations"] for node in rule["nodes"]] == []


def test_the_policy_lets_no_other_page_in(chromium: Any, run: RunFolder) -> None:
    context = chromium.new_context(offline=True, viewport={"width": 1300, "height": 900})
    tab = context.new_page()
    tab.goto(run.two_maps_page.absolute().as_uri())
    halves(tab)
    tab.evaluate(
        """() => { window.blocked = [];
        addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
        const add = (tag, properties) => document.body.append(Object.assign(document.createElement(tag), properties));
        add("script", { textContent: "window.hacked = 1" });
        add("iframe", { src: "http://127.0.0.1:9/" });
        add("iframe", { src: "data:text/html,x" });
        fetch("http://127.0.0.1:9/").catch(() => {}); }"""
    )
    tab.wait_for_timeout(500)
    assert tab.evaluate("window.hacked") is None
    assert sorted(tab.evaluate("blocked")) == ["connect-src", "frame-src", "frame-src", "script-src-elem"]
    context.close()
