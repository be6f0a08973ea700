"""The points of a map of many rows, in a real browser: none lost, none stacked that need not be, one selection."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from embedkit.analysis.components.pca import pca, project
from embedkit.analysis.page.carried_texts import texts_block
from embedkit.analysis.page.layer import choose_layer
from embedkit.analysis.page.pack import pack
from embedkit.analysis.page.render import render
from embedkit.analysis.similarity.umap import UmapLayout
from tests.support import browser
from tests.support.browser import until
from tests.support.merged_runs import merged_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

ROWS = 30_000
SOURCES = 20
STACK = 7
"""The first rows, all at one place."""
CLOSE = 100
"""The rows after them, each at a place of its own, all within one level of 16 bits."""
COLOURS = """() => { const { map, session } = modules.main, { gl, canvas } = map.scatter, bytes = new Uint8Array(4);
return Array.from(session.rows.x, (x, i) => {
  const [left, top] = map.toScreen(x, session.rows.y[i]);
  gl.readPixels(Math.round(left), Math.round(canvas.height - top), 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
  return [...bytes]; }); }"""

TOKENS = """() => { const { rows } = modules.main.session;
return Array.from(rows.ids, (_, i) => rows.columns.get("tokens").at(i)); }"""


def places() -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(0)
    xy = rng.uniform(-1, 1, size=(ROWS, 2))
    xy[:STACK] = (0.3, -0.4)
    xy[STACK : STACK + CLOSE, 0] = 0.5 + np.arange(CLOSE) * 2e-7
    xy[STACK : STACK + CLOSE, 1] = 0.5
    return xy.astype(np.float32)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("points")
    merged = merged_of(
        folder,
        np.random.default_rng(1).normal(size=(ROWS, 4)).astype(np.float32),
        [f"s{i % SOURCES:02}" for i in range(ROWS)],
    )
    found = pca(merged, 2)
    layout = UmapLayout(np.arange(ROWS), places(), np.zeros(ROWS, bool), 0, 15, 0.1)
    snippets = pl.Series([f"prompt {i}" for i in range(ROWS)])
    layer = replace(choose_layer(merged, found, project(merged, found), layout), snippets=snippets)
    texts = [f"prompt {i}" for i in range(STACK)]
    lines = pl.DataFrame({"id": np.arange(STACK), "prompt": texts, "prompt length": [len(text) for text in texts]})
    path = folder / "index.html"
    path.write_text(render("run", "lead", [], [], pack([layer]), (texts_block(lines), STACK)))
    return path


def opened(chromium: Any, page: Path, link: str = "") -> Any:
    return browser.opened(chromium, page, link, viewport={"width": 1300, "height": 900})


def test_all_rows_are_drawn_in_steps_once_the_map_rests(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        tab.wait_for_selector("#stage[data-all]")
        # As if there were time for 1,000 points of a frame.
        tab.evaluate("() => { const { map } = modules.main; map.perFrame = 1000; map.measure = () => {}; }")
        few = np.array(tab.evaluate(f"() => {{ modules.main.map.paint(); return ({COLOURS})(); }}"))
        assert 0.02 < (few[:, 3] > 0).mean() < 0.6
        drawn, all_ = tab.evaluate(
            f"""() => {{ const {{ map }} = modules.main, steps = map.scatter.drawInSteps(map.frameOf(map.viewport()));
            let step = steps.next(), drawn = 0;
            while (!step.done) {{ drawn += step.value; step = steps.next(1000); }}
            return [drawn, ({COLOURS})()]; }}"""
        )
        assert drawn == ROWS
        assert (np.array(all_)[:, 3] > 0).all()


def test_rows_in_one_level_of_16_bits_keep_their_places(chromium: Any, page: Path) -> None:
    """Places of 24 bits: rows that 16 bits would put on one place can be clicked one by one."""
    with opened(chromium, page) as tab:
        tab.wait_for_selector("#stage[data-ready]")
        xs = np.array(tab.evaluate("Array.from(modules.main.session.rows.x)"))
        close = xs[STACK : STACK + CLOSE]
        assert len(np.unique(np.floor(close * 65_535))) <= 2
        assert len(np.unique(close)) > CLOSE / 2
        wanted = places().astype(np.float64)
        unit = (wanted[:, 0] - wanted[:, 0].min()) / np.ptp(wanted, axis=0).max()
        assert np.abs(xs - xs.min() - unit).max() < 2e-7


def test_a_click_on_a_stack_lists_its_rows(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        tab.wait_for_selector("#stage[data-ready]")
        tab.evaluate("() => { const { map, session: { rows } } = modules.main; map.move(rows.x[0], rows.y[0], 500); }")
        box = tab.locator("#points").bounding_box()
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.mouse.move(*middle)
        assert "and 6 more at this place" in tab.inner_text("#tip")
        tab.mouse.click(*middle)
        assert "7 rows at this place" in tab.inner_text("#row .stack")
        lines = tab.locator("#row .stack button").all_inner_texts()
        assert [int(line.split()[0]) for line in lines] == list(range(STACK))
        assert lines[4].endswith("prompt 4")
        tab.locator("#row .stack button").nth(4).click()
        assert tab.inner_text("#row h2") == "Row with id 4"
        assert tab.get_attribute("#row .stack button >> nth=4", "aria-current") == "true"
        tab.locator("#sources input").nth(4).uncheck()  # hidden rows are in no stack
        tab.mouse.click(*middle)
        assert "6 rows at this place" in tab.inner_text("#row .stack")


def test_a_range_of_tokens_is_part_of_the_selection(chromium: Any, page: Path) -> None:
    with opened(chromium, page, "#hide=0") as tab:
        tab.wait_for_selector("#stage[data-ready]")
        tokens = np.array(tab.evaluate(TOKENS))
        tab.click("#charts summary")
        low, high = (int(number) for number in np.quantile(tokens, (0.2, 0.4)))
        wanted = [i for i in range(ROWS) if low <= tokens[i] <= high and i % SOURCES]
        least, most = (
            tab.get_by_label("least tokens of selected rows"),
            tab.get_by_label("most tokens of selected rows"),
        )
        least.fill(str(low))
        most.fill(str(high))
        until(tab, f"modules.main.session.state.ranges.tokens?.[1] === {high}")
        assert tab.evaluate("Array.from(modules.main.session.selection.positions)") == wanted
        assert tab.inner_text("#chosen").startswith(f"{len(wanted):,} rows with {low:,} to {high:,} tokens")
        tab.fill("#search", '"prompt 3"')
        until(tab, "modules.main.session.state.q !== ''")
        assert tab.evaluate("Array.from(modules.main.session.selection.positions)") == [i for i in wanted if i == 3]
        tab.wait_for_timeout(250)
        link = tab.evaluate("location.hash")
        assert f"range.tokens={low}..{high}" in link
        tab.click("#clear")
        assert tab.evaluate("modules.main.session.selection.active") is False
        assert least.input_value() == ""
    with opened(chromium, page, link) as tab:
        tab.wait_for_selector("#stage[data-ready]")
        assert tab.get_by_label("least tokens of selected rows").input_value() == str(low)
