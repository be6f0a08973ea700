"""The map as a picture to keep, in a real browser."""

import io
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import browser
from tests.support.browser import until
from tests.support.made_page import made_groups, made_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

SVG = "{http://www.w3.org/2000/svg}"
SOURCES = {"alpha": 30, "<b>beta</b> & \x01 a name that is too long for a legend": 20, "gamma": 10}
NAMES = {"coarse": ["large <topic>", "other topic"], "fine": ["one detail", "another", "a third", "the last"]}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = sum(SOURCES.values())
    fine = np.arange(rows, dtype=np.int32) * 4 // rows
    parents = {"coarse": [0, 0, 1, 1], "fine": list(range(4))}
    xy = np.random.default_rng(1).normal(size=(rows, 2)).astype(np.float32)
    xy[:, 0] += 6.0 * fine
    return made_page(
        tmp_path_factory.mktemp("picture"), SOURCES, groups=made_groups(fine, NAMES, parents, "alpha"), xy=xy
    )


def opened(chromium: Any, page: Path, link: str = "", **options: Any) -> Any:
    return browser.opened(chromium, page, link, viewport={"width": 1200, "height": 800}, **options)


def saved(tab: Any, kind: str) -> bytes:
    tab.wait_for_selector("#stage[data-all]", state="attached", timeout=30_000)
    with tab.expect_download() as download:
        tab.click(f"#{kind}")
    assert download.value.suggested_filename == f"made-map.{kind}"
    return Path(download.value.path()).read_bytes()


def texts_of(picture: ET.Element, kind: str) -> list[str]:
    return [text.text or "" for text in picture.iter(f"{SVG}text") if kind in (text.get("class") or "").split()]


def dots(path: ET.Element) -> int:
    return (path.get("d") or "").count("M")


def test_a_drawing_has_points_names_and_legend(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        until(tab, "document.querySelectorAll('#names button').length > 0")
        picture = ET.fromstring(saved(tab, "svg"))
        shown = tab.locator("#names button").all_inner_texts()
        colours = tab.evaluate("modules.data.META.layers[0].colours.map((colour) => `rgb(${colour})`)")
        counts = tab.evaluate("modules.data.META.layers[0].counts")
    paths = [path for path in picture.iter(f"{SVG}path") if path.get("class") == "points"]
    assert {path.get("stroke"): dots(path) for path in paths} == dict(zip(colours, counts, strict=True))
    assert sorted(texts_of(picture, "name")) == sorted(shown)
    assert "large <topic>" in shown
    assert [int(text) for text in texts_of(picture, "count")] == sorted(counts, reverse=True)
    legend = [text.text or "" for text in picture.iter(f"{SVG}text") if text.get("x") == "17"]
    assert legend[0] == "alpha"
    assert legend[1].startswith("<b>beta")
    assert "…" in legend[1]
    assert texts_of(picture, "title") == ["made"]
    assert texts_of(picture, "soft") == ["60 rows, UMAP"]


def test_a_drawing_has_what_the_window_shows(chromium: Any, page: Path) -> None:
    """A selection is in colour and last, hidden sources and rows outside the window are left out."""
    with opened(chromium, page, "#map=pc&colour=tokens&q=the&range.tokens=1..40&hide=2&at=0.5,0.5,2") as tab:
        picture = ET.fromstring(saved(tab, "svg"))
        wanted = tab.evaluate(
            """() => { const { map, session: { rows, selection } } = modules.main, port = map.viewport();
            const lit = new Set(selection.positions), found = [0, 0];
            for (let i = 0; i < rows.ids.length; i++) {
              const [x, y] = map.toScreen(rows.x[i], rows.y[i], port);
              if (map.isShown(i) && x >= 0 && y >= 0 && x <= port.width && y <= port.height) found[+lit.has(i)]++;
            }
            return found; }"""
        )
    paths = [path for path in picture.iter(f"{SVG}path") if path.get("class") == "points"]
    widths = [float(path.get("stroke-width") or 0) for path in paths]
    assert widths == sorted(widths)
    drawn: Counter[str | None] = Counter()
    for path in paths:
        drawn[path.get("stroke-opacity")] += dots(path)
    assert sum(drawn.values()) == sum(wanted)
    assert 0 < wanted[1] < sum(wanted)
    caption = (
        "PC1 (20.0% of the variance) and PC2 (10.0% of the variance), in colour: 40 of 60 rows with 1 to 40 tokens"
    )
    assert texts_of(picture, "soft")[0] == f'60 rows, {caption} have "the"'
    assert picture.find(f".//{SVG}linearGradient") is not None
    assert len(texts_of(picture, "tick")) > 4
    assert len(texts_of(picture, "axis")) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_picture_has_two_pixels_for_each_of_the_drawing(chromium: Any, page: Path, scheme: str) -> None:
    with opened(chromium, page, color_scheme=scheme) as tab:
        drawing = ET.fromstring(saved(tab, "svg"))
        picture = Image.open(io.BytesIO(saved(tab, "png"))).convert("RGB")
        colour = tab.evaluate("modules.data.META.layers[0].colours[0]")
    assert picture.size == (2 * float(drawing.get("width") or 0), 2 * float(drawing.get("height") or 0))
    pixels = np.asarray(picture).reshape(-1, 3).astype(int)
    paper = {"light": (255, 255, 255), "dark": (0x14, 0x17, 0x1A)}[scheme]
    assert (pixels[0] == paper).all()
    assert (np.abs(pixels - colour).max(axis=1) < 3).sum() > 100  # the swatch of the legend, 20 x 20


def test_many_points_are_one_picture_in_the_drawing(chromium: Any, tmp_path: Path) -> None:
    """The canvas has its own size again afterwards."""
    page = made_page(tmp_path, {"one": 20_001})
    with opened(chromium, page) as tab:
        picture = ET.fromstring(saved(tab, "svg"))
        tab.wait_for_timeout(300)
        size = tab.evaluate("[modules.main.map.canvas.width, modules.main.map.canvas.clientWidth]")
    (image,) = picture.iter(f"{SVG}image")
    assert (image.get("href") or "").startswith("data:image/png;base64,")
    assert not [path for path in picture.iter(f"{SVG}path") if path.get("class") == "points"]
    assert size[0] == size[1]
