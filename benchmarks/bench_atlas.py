"""The page of a run as large as the first user's, in Chromium without a GPU: its size, how soon its points are there,
and its frames while the map is moved; beside plotly's WebGL scatter of the same points in one file.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import plotly.io
import polars as pl

from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.measure import Figure
from embedkit.analysis.components.pca import PCA
from embedkit.analysis.merged import CHAT_NAMES, Merged
from embedkit.analysis.page.pack import MAX_TEXT_ROWS, SHOWN_CHARACTERS, choose_layer, pack, texts_block
from embedkit.analysis.page.render import render
from embedkit.analysis.page.sections import Section
from embedkit.analysis.similarity.umap import UmapLayout
from tests.support import browser

ROWS = 2_268_178
SOURCES = 445
COMPONENTS = 10
MOVES = 20
WINDOW = {"width": 1280, "height": 800}
FRAMES = """() => { window.frames_ = []; const tick = (at) => { frames_.push(at); requestAnimationFrame(tick); };
requestAnimationFrame(tick); }"""


@dataclass(frozen=True)
class PageTiming:
    """Measurements of one page.

    Bytes of the file; seconds until the points were drawn and until all could be used; milliseconds between frames
    while the map was dragged.
    """

    size: int
    drawn: float
    ready: float
    frames: list[float]

    def describe(self) -> str:
        """Every measurement as text."""
        return (
            f"{self.size / 1e6:.1f} MB, points after {self.drawn:.1f} s, all after {self.ready:.1f} s, frames of "
            f"{median(self.frames):.0f} ms (95 %: {slowest(self):.0f} ms)"
        )


def slowest(timing: PageTiming) -> float:
    """The 95 % quantile of milliseconds per frame."""
    return quantiles(timing.frames, n=20)[-1]


def bench(rows: int = ROWS) -> Iterator[Figure]:
    """Measure both pages, each opened once in a warm browser."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    source, xy = made(rows)
    ours, theirs = FOLDER / "atlas.html", FOLDER / "plotly.html"
    began = time.monotonic()
    ours.write_text(our_page(source, xy))
    writing = time.monotonic() - began
    theirs.write_text(plotly_page(source, xy))
    with browser.chromium() as chromium:
        measure_page(chromium, ours, "#stage[data-points]", "#stage[data-ready]", "#points")
        timing = measure_page(chromium, ours, "#stage[data-points]", "#stage[data-ready]", "#points")
        rival = measure_page(chromium, theirs, "#drawn", "#drawn", ".nsewdrag")
    what = f"the page of {rows:,} rows, {SOURCES} sources, in Chromium with WebGL by software"
    yield Figure(
        work=f"{what}: its file",
        value=timing.size / 1e6,
        unit="MB",
        target=80,
        at_most=True,
        measured=f"{timing.describe()}; written in {writing:.0f} s",
        rival=f"plotly's scattergl, two coordinates and no texts: {rival.describe()}",
    )
    yield Figure(
        work=f"{what}: points drawn",
        value=timing.drawn,
        unit="seconds",
        target=10,
        at_most=True,
        measured=timing.describe(),
        rival=f"plotly: {rival.drawn:.1f} s",
    )
    # The median would count frames in which a page had not begun to draw.
    yield Figure(
        work=f"{what}: longest waits for a frame while moving",
        value=slowest(rival) / slowest(timing),
        target=1.0,
        measured=f"{slowest(timing):.0f} ms, the 95 % quantile; the median is {median(timing.frames):.0f} ms",
        rival=f"plotly: {slowest(rival):.0f} ms; the median is {median(rival.frames):.0f} ms",
    )
    for page in (ours, theirs):
        page.unlink()


def made(rows: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Make codes of sources of uneven sizes, int32 (rows,), and places around the centre of each, float32 (rows, 2)."""
    rng = np.random.default_rng(0)
    weights = rng.pareto(1.2, SOURCES) + 0.05
    source = rng.choice(SOURCES, rows, p=weights / weights.sum()).astype(np.int32)
    middles = rng.normal(size=(SOURCES, 2)) * 8
    xy = middles[source] + rng.normal(size=(rows, 2)) * rng.uniform(0.2, 1.5, SOURCES)[source, None]
    return source, xy.astype(np.float32)


def our_page(source: npt.NDArray[np.int32], xy: npt.NDArray[np.float32]) -> str:
    """Write the page as `analyze` does, from made-up rows."""
    rng = np.random.default_rng(1)
    rows = len(source)
    names = tuple(f"source {code}" for code in range(SOURCES))
    frame = pl.DataFrame(
        {
            "id": np.arange(rows),
            "num_tokens": np.minimum(rng.lognormal(8.8, 0.85, rows), 32_768).astype(np.int64),
            "num_turns": rng.geometric(0.8, rows),
            "source": source,
        }
    )
    scores = (rng.normal(size=(rows, COMPONENTS)) / np.arange(1, COMPONENTS + 1)).astype(np.float32)
    share = np.linspace(0.1, 0.01, COMPONENTS)
    found = cast("PCA", type("Found", (), {"explained_variance_ratio": share}))
    # The map needs nothing else of a merged run.
    merged = cast(
        "Merged",
        type("Rows", (), {"rows": frame, "has_text": np.ones(rows, bool), "sources": names, "view": "combined"}),
    )
    placed = np.ones(rows, bool)
    placed[rng.choice(rows, min(rows, 20_000), replace=False)] = False
    umap_layout = UmapLayout(np.arange(rows), xy, placed, 0, 15, 0.1)
    text = demo_texts()
    starts = rng.integers(0, len(text) - 20_000, MAX_TEXT_ROWS)
    texts = {
        name: [text[at : at + SHOWN_CHARACTERS] for at in starts + 2500 * n]
        for n, name in enumerate(CHAT_NAMES.values())
    }
    lines = pl.DataFrame({"id": np.sort(rng.choice(rows, MAX_TEXT_ROWS, replace=False)), **texts})
    lines = lines.with_columns([pl.lit(20_000).alias(f"{name} length") for name in texts])
    data = pack([choose_layer(merged, found, scores, umap_layout)])
    figure = Section("A figure", figures=[("so that plotly.js is there", go.Figure(go.Scatter(y=[1, 2])))])
    return render("made", "made rows", [], [figure], data, (texts_block(lines), lines.height))


def plotly_page(source: npt.NDArray[np.int32], xy: npt.NDArray[np.float32]) -> str:
    """Write the same points with plotly: one WebGL trace, coloured by source, in one file."""
    marker = {"size": 2, "color": source, "colorscale": "Turbo"}
    figure = go.Figure(go.Scattergl(x=xy[:, 0], y=xy[:, 1], mode="markers", marker=marker))
    figure.update_layout(dragmode="pan", width=WINDOW["width"], height=WINDOW["height"], uirevision=1)
    done = (
        "var mark = document.createElement('p'); mark.id = 'drawn'; mark.textContent = '.'; document.body.append(mark);"
    )
    return plotly.io.to_html(figure, include_plotlyjs=True, post_script=done)


def measure_page(chromium: Any, page: Path, drawn: str, ready: str, handle: str) -> PageTiming:
    """Open a page, drag its map and measure."""
    context = chromium.new_context(offline=True, viewport=WINDOW)
    tab = context.new_page()
    tab.set_default_timeout(180_000)
    began = time.monotonic()
    tab.goto(page.absolute().as_uri(), wait_until="commit")
    tab.wait_for_selector(drawn, state="attached")
    points = time.monotonic() - began
    tab.wait_for_selector(ready, state="attached")
    tab.wait_for_load_state("load")
    whole = time.monotonic() - began
    box = tab.locator(handle).first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.evaluate(FRAMES)
    for move in range(MOVES):
        tab.mouse.move(x + 4 * move, y + 2 * move)
    tab.mouse.up()
    frames = np.diff(tab.evaluate("frames_")).tolist()
    context.close()
    return PageTiming(page.stat().st_size, points, whole, frames)


if __name__ == "__main__":
    for figure in bench():
        print(figure)
