"""Search, area and legend are one selection on a map of many sources, in a real browser."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support import browser
from tests.support.browser import until
from tests.support.made_page import made_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

PER_SOURCE = 10
SOURCES = {f"a_source_with_a_rather_long_name_that_ends_in_{code:02}": PER_SOURCE for code in range(30)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source by source; each text is "the row <id> of it"."""
    return made_page(tmp_path_factory.mktemp("many"), SOURCES)


@contextmanager
def opened(chromium: Any, page: Path, link: str = "", **options: Any) -> Iterator[Any]:
    with browser.opened(chromium, page, link, **{"viewport": {"width": 1300, "height": 900}, **options}) as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        yield tab


def colours_at_rows(tab: Any) -> npt.NDArray[np.int64]:
    """Red, green, blue and opacity at the middle of each row's point."""
    return np.array(
        tab.evaluate(
            """() => { const { map, session } = modules.main, { gl, canvas } = map.scatter, found = [];
            map.paint(1);
            const bytes = new Uint8Array(4);
            for (let i = 0; i < session.rows.x.length; i++) {
              const [x, y] = map.toScreen(session.rows.x[i], session.rows.y[i]);
              gl.readPixels(Math.round(x), Math.round(canvas.height - y), 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
              found.push([...bytes]);
            }
            return found; }"""
        )
    )


def greyness(colours: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How far the red, green and blue of each row are apart: small for grey."""
    return np.asarray(np.ptp(colours[:, :3], axis=1))


def search(tab: Any, typed: str) -> str:
    """Type a search and return how many rows of what were found."""
    tab.fill("#search", typed)
    until(tab, f"modules.main.session.state.q === {json.dumps(typed)}")
    return str(tab.inner_text("#chosen"))


def test_every_hit_is_drawn_and_the_rest_is_grey(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        assert search(tab, "the").startswith("300 of 300 rows")
        assert tab.evaluate("modules.main.map.scatter.lit") == 300
        assert search(tab, '"row 7"').startswith("1 of 300 rows")
        colours = greyness(colours_at_rows(tab))
        assert colours[7] > 60
        assert (colours > 60).sum() <= 3  # others under the same point


def test_hovering_over_the_legend_greys_the_others(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        assert (greyness(colours_at_rows(tab)) > 40).mean() > 0.8
        tab.locator("#sources li").nth(3).hover()
        colours = greyness(colours_at_rows(tab))
        lit = np.arange(300) // PER_SOURCE == 3
        assert (colours[lit] > 40).all()
        assert (colours[~lit] > 40).mean() < 0.05
        tab.mouse.move(600, 400)
        assert (greyness(colours_at_rows(tab)) > 40).mean() > 0.8


@pytest.mark.parametrize("kind", ["box", "lasso", "inview"])
def test_a_link_brings_the_selection_back(chromium: Any, page: Path, kind: str) -> None:
    selected = "Array.from(modules.main.session.selection.positions)"
    with opened(chromium, page) as tab:
        box = tab.locator("#points").bounding_box()
        middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
        tab.evaluate("modules.main.session.update({ at: [0.4, 0.6, 1.7] })")
        tab.click(f"#{kind}")
        if kind != "inview":
            angles = np.linspace(0, 2 * np.pi, 60 if kind == "lasso" else 2)
            path = middle + 220 * np.stack([np.cos(angles), np.sin(angles + 0.5)], axis=1)
            path = path if kind == "lasso" else middle + np.array([[-90, -120], [100, 130]])
            tab.mouse.move(*path[0])
            tab.mouse.down()
            for point in path[1:]:
                tab.mouse.move(*point)
            tab.mouse.up()
        search(tab, "the -12")
        tab.evaluate("modules.main.session.update({ ranges: { tokens: [20, 250] } })")
        tab.wait_for_timeout(300)
        wanted, title, link = tab.evaluate(selected), tab.inner_text("#chosen"), tab.evaluate("location.hash")
    assert 0 < len(wanted) < 230
    assert len(link) < 700
    with opened(chromium, page, link) as tab:
        assert (tab.evaluate(selected), tab.inner_text("#chosen")) == (wanted, title)
        tab.wait_for_timeout(300)
        assert tab.evaluate("location.hash") == link


@pytest.mark.parametrize(
    "area",
    ["", "drawn", "drawn,0,0,1,1,", "drawn,0,0,1,1,AAAAAAAAAAAAAAAAA", "none,0,0,1,1,AAAAAAAAAAAAAAAA", "view,a"],
)
def test_a_broken_area_is_none(chromium: Any, page: Path, area: str) -> None:
    with opened(chromium, page, f"#area={area}&q=the") as tab:
        assert tab.evaluate("modules.main.session.state.area") is None
        assert tab.inner_text("#chosen").startswith("300 of 300 rows")


def test_an_outline_is_kept_to_a_pixel_with_few_points(chromium: Any, page: Path) -> None:
    """Any outline, simplified, is within a pixel of the drawn one, and equals itself after a text."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(20, 400, 2)).cumsum(axis=1) / rng.uniform(1, 300, size=(20, 1, 1))
    with opened(chromium, page) as tab:
        found = tab.evaluate(
            """(outlines) => outlines.map((outline) => {
            const { simplified, toText, fromText } = modules.outline, kept = simplified(outline, [0.01, 0.02]);
            return [kept, fromText(toText(kept))]; })""",
            steps.tolist(),
        )
    for outline, (kept, again) in zip(steps, found, strict=True):
        assert again == kept
        points = np.array(kept) / [0.01, 0.02]
        ends = np.stack([points[:-1], points[1:]], axis=1)
        assert all(_distance(point / [0.01, 0.02], ends).min() < 1.05 for point in outline)
        assert len(kept) < len(outline)


def _distance(point: npt.NDArray[np.float64], ends: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How far a point is from each of some lines. ends: (n, 2, 2)."""
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    share = ((point - start) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-12)
    nearest = start + np.clip(share, 0, 1)[:, None] * along
    return np.asarray(np.hypot(*(point - nearest).T))


def test_search_area_and_legend_are_one_selection(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        search(tab, "the")
        first = tab.locator("#sources li").first
        first.locator("input").uncheck()
        assert tab.inner_text("#chosen").startswith("290 of 300 rows")
        assert first.locator(".count").inner_text() == "0 of 10"
        assert int(tab.locator("#rows button").first.inner_text().split()[0]) == PER_SOURCE
        assert tab.evaluate("modules.main.map.scatter.lit") == 290
        with tab.expect_download() as download:
            tab.click("#csv")
        ids = [int(line.split(",")[0]) for line in Path(download.value.path()).read_text("utf-8").splitlines()[1:]]
        assert ids == list(range(PER_SOURCE, 300))
        search(tab, "the -12")
        tab.click("#inview")
        assert tab.inner_text("#chosen").startswith('289 rows in view have "the" and not "12"')
        tab.locator("#sources li").nth(1).locator(".only").click(force=True)
        assert tab.inner_text("#composition") == "a_source_with_a_rather_long_name_that_ends_in_01: 9"
        tab.click("#all")
        assert tab.inner_text("#chosen").startswith("299 rows in view")
        tab.click("#clear")
        assert tab.input_value("#search") == ""
        assert tab.inner_text("#chosen") == ""
        assert first.locator(".count").inner_text() == "10"


def test_found_words_are_marked_in_the_row(chromium: Any, page: Path) -> None:
    with opened(chromium, page, "#row=41&q=ROW") as tab:
        assert tab.locator("#row mark").all_inner_texts() == ["row"]
        assert tab.locator("#row pre").first.text_content() == "the row 41 of it"


def test_all_and_none_follow_the_filter(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        tab.fill("#filter", "in_1")
        tab.click("#none")
        tab.fill("#filter", "")
        hidden = [i for i, box in enumerate(tab.locator("#sources input").all()) if not box.is_checked()]
        assert hidden == list(range(10, 20))
        tab.fill("#filter", "in_12")
        tab.click("#all")
        assert tab.evaluate("modules.main.session.state.hidden.size") == 9


def test_a_long_name_keeps_its_end(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        name = tab.locator("#sources .name").nth(7)
        assert name.text_content() == "a_source_with_a_rather_long_name_that_ends_in_07"
        box, end = name.bounding_box(), name.locator("span").last.bounding_box()
        assert name.locator("span").last.text_content().endswith("07")
        assert end["x"] + end["width"] <= box["x"] + box["width"] + 1


def test_on_a_phone_an_opened_row_is_in_view(chromium: Any, page: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(chromium, page, "#row=3", **phone) as tab:
        assert tab.locator("#row h2").bounding_box()["y"] < 600
        assert "Shift" not in tab.inner_text(".hint")
