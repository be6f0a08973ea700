"""Charts of numbers and categories beside the map, in a real browser: each selects, and all follow the selection."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.options import Options
from embedkit.analysis.stage import analyze
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support import browser
from tests.support.browser import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

ROWS = 60
KINDS = [("red", "green", "blue")[i % 3] for i in range(ROWS)]
"""By position in the data set; the last 10 rows have none."""
QUALITY = [i / 10 for i in range(ROWS)]
POSITIONS = "Array.from(modules.main.session.selection.positions)"


@pytest.fixture(scope="module")
def page(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("charts")
    data = write_chats(folder / "chats.parquet", [chat("word " * (i + 1), "yes") for i in range(ROWS)], ["s"] * ROWS)
    embedkit("run", *hash_request(data, tokenizer_only, folder), "--shards", 1)
    scores = folder / "scores.parquet"
    pl.DataFrame({"row": range(ROWS), "kind": [*KINDS[:-10], *[None] * 10], "quality": QUALITY}).write_parquet(scores)
    columns = (f"{scores}:kind", f"{scores}:quality")
    run = RunFolder(folder / "run")
    analyze(run, Options(map_rows=0, groups=0, components=2, duplicates=0, findings=0, columns=columns))
    return run.analysis / "index.html"


def opened(chromium: Any, page: Path, link: str = "") -> Any:
    return browser.opened(chromium, page, link, viewport={"width": 1300, "height": 900})


@pytest.fixture
def tab(chromium: Any, page: Path) -> Iterator[Any]:
    with opened(chromium, page) as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        tab.click("#charts summary")
        tab.wait_for_selector(".chart")
        yield tab


def chart(tab: Any, title: str) -> Any:
    return tab.locator(".chart", has=tab.locator("h3", has_text=title))


def test_every_column_that_differs_has_a_chart(tab: Any) -> None:
    titles = tab.locator(".chart h3").all_inner_texts()
    assert titles == ["tokens", "distance to the nearest row (1 - cosine)", "kind", "quality"]


def test_a_drag_over_a_chart_selects_and_the_others_follow(tab: Any) -> None:
    bars = chart(tab, "quality").locator(".bars")
    bars.scroll_into_view_if_needed()
    box = bars.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] - 1e-3, box["y"] + 20)
    tab.mouse.up()
    least = float(chart(tab, "quality").get_by_label("least quality").input_value())
    assert least == pytest.approx(2.95, abs=0.06)
    selected = [i for i in range(ROWS) if QUALITY[i] >= least]
    assert tab.evaluate(POSITIONS) == selected
    assert tab.inner_text("#chosen").startswith(f"{len(selected)} rows with {least:g} or more quality")
    counts = {kind: sum(KINDS[i] == kind for i in selected if i < ROWS - 10) for kind in set(KINDS)}
    lines = [text.split() for text in chart(tab, "kind").locator("li").all_inner_texts()]
    assert {line[0]: int(line[1]) for line in lines} == counts
    assert chart(tab, "kind").locator(".hint").inner_text() == "10 rows have none"
    bars.click(position={"x": 5, "y": 20})
    assert tab.evaluate("modules.main.session.selection.active") is False


def test_boxes_of_categories_select_together_with_numbers(tab: Any) -> None:
    kind = chart(tab, "kind")
    kind.get_by_label("blue").check()
    assert tab.evaluate(POSITIONS) == [i for i in range(ROWS - 10) if KINDS[i] == "blue"]
    kind.get_by_label("red").check()
    chart(tab, "quality").get_by_label("most quality").fill("2")
    until(tab, "modules.main.session.state.ranges.quality?.[1] === 2")
    assert tab.evaluate(POSITIONS) == [i for i in range(21) if KINDS[i] != "green"]
    assert 'with kind "blue" or "red" and with 0 to 2 quality' in tab.inner_text("#chosen")
    kind.get_by_label("blue").uncheck()
    assert tab.evaluate("document.activeElement.labels[0].innerText").startswith("blue")  # the focus stays
    assert tab.evaluate(POSITIONS) == [i for i in range(21) if KINDS[i] == "red"]


def test_a_link_restores_what_charts_select(chromium: Any, page: Path, tab: Any) -> None:
    chart(tab, "kind").get_by_label("red").check()
    chart(tab, "tokens").get_by_label("least tokens").fill("30")
    until(tab, "modules.main.session.state.ranges.tokens?.[0] === 30")
    wanted = tab.evaluate(POSITIONS)
    tab.wait_for_timeout(250)
    with opened(chromium, page, tab.evaluate("location.hash")) as other:
        other.wait_for_selector("#stage[data-ready]", timeout=30_000)
        assert other.evaluate(POSITIONS) == wanted
        assert chart(other, "kind").get_by_label("red").is_checked()
        other.click("#clear")
        assert chart(other, "tokens").get_by_label("least tokens").input_value() == ""
        assert not chart(other, "kind").get_by_label("red").is_checked()


def test_points_are_coloured_by_any_column(tab: Any) -> None:
    shades = "Array.from(modules.main.session.colouring.shades)"
    tab.select_option("#colour", "kind")
    until(tab, "modules.main.session.colouring.colours.length === 4")
    found = np.array(tab.evaluate(shades))
    codes = {kind: code + 1 for code, kind in enumerate(sorted(set(KINDS)))}
    assert found.tolist() == [codes[kind] for kind in KINDS[:-10]] + [0] * 10
    assert chart(tab, "kind").locator(".swatch").first.evaluate("e => e.style.background").startswith("rgb")
    tab.select_option("#colour", "quality")
    tab.wait_for_selector("#ramp:visible")
    found = np.array(tab.evaluate(shades))
    assert (found[0], found[-1]) == (1, 255)
    assert (np.diff(found) > 0).all()
    assert tab.inner_text("#ramp").split() == ["quality", "0", "2.95", "5.9"]


def test_the_row_panel_has_every_column(tab: Any) -> None:
    tab.evaluate("modules.main.session.update({ row: 4 })")
    facts = tab.inner_text("#row dl").split("\n")
    assert facts[facts.index("kind") + 1] == "green"
    assert facts[facts.index("quality") + 1] == "0.4"
    value = tab.locator("#row dd").first
    assert value.bounding_box()["width"] > 100  # no name of a column leaves a letter's width for what it says


@pytest.mark.parametrize(
    ("limits", "levels"),
    [
        ([None, None], [1, 11]),
        ([0, 10], [1, 11]),
        ([2.5, 7.5], [4, 8]),
        ([3, 3], [4, 4]),
        ([-5, 0], [1, 1]),
        ([11, 20], [None, 11]),
        ([-5, -1], [1, 0]),
    ],
)
def test_limits_of_whole_numbers_are_exact(tab: Any, limits: list[float | None], levels: list[int | None]) -> None:
    """Level 1 is 0, level 11 is 10. A first level of none (infinity) is after all of them."""
    about = {
        "kind": "number",
        "name": "n",
        "title": "n",
        "low": 0,
        "high": 10,
        "steps": 10,
        "whole": True,
        "log": False,
    }
    make = "new modules.columns.NumberColumn(about, new Uint8Array(0)).levelsOf(limits)"
    found = tab.evaluate(
        f"([about, limits]) => {make}.map((level) => (level === Infinity ? null : level))", [about, limits]
    )
    assert found == levels
