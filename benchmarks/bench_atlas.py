"""The page of a run as large as the first user's, in Chromium without a GPU: its size, how soon its points are there,
its frames while the map is moved, and a search; beside maps of the same points by plotly and by regl-scatterplot, each
in one file.
"""

import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import plotly.io
import polars as pl

from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.measure import Figure
from embedkit.analysis.components.pca import PCA
from embedkit.analysis.groups import Groups, GroupSummary, NamedGroups
from embedkit.analysis.merged import CHAT_NAMES, Merged
from embedkit.analysis.page.carried_texts import MAX_TEXT_ROWS, SHOWN_CHARACTERS, texts_block
from embedkit.analysis.page.columns import CategoryColumn
from embedkit.analysis.page.layer import choose_layer
from embedkit.analysis.page.pack import pack
from embedkit.analysis.page.render import render
from embedkit.analysis.page.sections import Section
from embedkit.analysis.page.snippets import MAX_CHARACTERS
from embedkit.analysis.similarity.umap import UmapLayout
from tests.support import browser

ROWS = 2_268_178
SOURCES = 445
COMPONENTS = 10
MOVES = 20
WINDOW = {"width": 1280, "height": 800}
RIVALS = Path(".venv/rivals/node_modules")
"""`make .venv/rivals.stamp` installs them."""
SEARCH = """() => { const { session } = modules.main, began = performance.now();
session.update({ q: "the" });
return { ms: performance.now() - began, found: session.selection.positions.length,
  characters: session.rows.snippets.characters }; }"""
FRAMES = """() => { window.frames_ = []; const tick = (at) => { frames_.push(at); requestAnimationFrame(tick); };
requestAnimationFrame(tick); }"""


@dataclass(frozen=True)
class PageTiming:
    """Measurements of one page.

    Bytes of the file; seconds until points were drawn and until all were and could be used; milliseconds between frames
    while the map was dragged, and of a search: ms, found (rows), characters (of each row).
    """

    size: int
    drawn: float
    ready: float
    frames: list[float]
    search: dict[str, float]


def slowest(timing: PageTiming) -> float:
    """The 95 % quantile of milliseconds per frame."""
    return quantiles(timing.frames, n=20)[-1]


def bench(rows: int = ROWS) -> Iterator[Figure]:
    """Measure the page and its rivals, each opened in a warm browser."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    source, xy = made(rows)
    ours, plotly, regl = (FOLDER / f"{name}.html" for name in ("atlas", "plotly", "regl"))
    began = time.monotonic()
    ours.write_text(our_page(source, xy))
    writing = time.monotonic() - began
    plotly.write_text(plotly_page(source, xy))
    regl.write_text(regl_page(source, xy))
    with browser.chromium() as chromium:
        measure_page(chromium, ours, "#stage[data-points]", "#stage[data-all]", "#points")
        timing = measure_page(chromium, ours, "#stage[data-points]", "#stage[data-all]", "#points", SEARCH)
        rivals = {
            "regl-scatterplot": measure_page(chromium, regl, "canvas[data-drawn]", "canvas[data-drawn]", "canvas"),
            "plotly's scattergl": measure_page(chromium, plotly, "#drawn", "#drawn", ".nsewdrag"),
        }
    for page in (ours, plotly, regl):
        page.unlink()
    yield from _figures(f"the page of {rows:,} rows, {SOURCES} sources", timing, rivals, writing)


def _figures(what: str, timing: PageTiming, rivals: dict[str, PageTiming], writing: float) -> Iterator[Figure]:
    """One figure for each target."""

    def beside(describe: Callable[[PageTiming], str]) -> str:
        return ", ".join(f"{name}: {describe(rival)}" for name, rival in rivals.items())

    yield Figure(
        work=f"{what}, in Chromium with WebGL by software: its file",
        value=timing.size / 1e6,
        unit="MB",
        target=100,
        at_most=True,
        measured=f"written in {writing:.0f} s",
        rival=f"without texts and components, {beside(lambda rival: f'{rival.size / 1e6:.1f} MB')}",
    )
    yield Figure(
        work=f"{what}: first points",
        value=timing.drawn,
        unit="seconds",
        target=3,
        at_most=True,
        measured=f"all points and all else after {timing.ready:.1f} s",
        rival=f"all points, {beside(lambda rival: f'{rival.drawn:.1f} s')}",
    )
    yield Figure(
        work=f"{what}: frames while moving",
        value=median(timing.frames),
        unit="ms",
        target=60,
        at_most=True,
        measured="the median",
        rival=beside(lambda rival: f"{median(rival.frames):.0f} ms"),
    )
    yield Figure(
        work=f"{what}: longest waits for a frame while moving",
        value=slowest(timing),
        unit="ms",
        target=300,
        at_most=True,
        measured="the 95 % quantile",
        rival=beside(lambda rival: f"{slowest(rival):.0f} ms"),
    )
    yield Figure(
        work=f"{what}: a search in the snippets of all rows",
        value=timing.search["ms"] / 1000,
        unit="seconds",
        target=0.5,
        at_most=True,
        measured=f'"the" in {timing.search["characters"]} characters of each, {timing.search["found"]:,} rows have it',
        rival="none has a search",
    )


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
            "row": np.arange(rows) + np.cumsum(rng.random(rows) < 0.05),
            "num_tokens": np.minimum(rng.lognormal(8.8, 0.85, rows), 32_768).astype(np.int64),
            "num_turns": rng.geometric(0.8, rows),
            "source": source,
        }
    )
    scores = (rng.normal(size=(rows, COMPONENTS)) / np.arange(1, COMPONENTS + 1)).astype(np.float32)
    share = np.linspace(0.1, 0.01, COMPONENTS)
    found = cast("PCA", SimpleNamespace(explained_variance_ratio=share))
    counts = np.bincount(source, minlength=SOURCES).tolist()
    records = {name: SimpleNamespace(rows=number) for name, number in zip(names, counts, strict=True)}
    # The map needs nothing else of a merged run.
    needed = SimpleNamespace(
        rows=frame,
        has_text=np.ones(rows, bool),
        sources=names,
        view="combined",
        success=SimpleNamespace(sources=records),
    )
    merged = cast("Merged", needed)
    placed = np.ones(rows, bool)
    placed[rng.choice(rows, min(rows, 20_000), replace=False)] = False
    umap_layout = UmapLayout(np.arange(rows), xy, placed, 0, 15, 0.1)
    text, with_text = demo_texts(), min(rows, MAX_TEXT_ROWS)
    starts = rng.integers(0, len(text) - 20_000, with_text)
    texts = {
        name: [text[at : at + SHOWN_CHARACTERS] for at in starts + 2500 * n]
        for n, name in enumerate(CHAT_NAMES.values())
    }
    lines = pl.DataFrame({"id": np.sort(rng.choice(rows, with_text, replace=False)), **texts})
    lines = lines.with_columns([pl.lit(20_000).alias(f"{name} length") for name in texts])
    snippets = [text[at : at + MAX_CHARACTERS] for at in rng.integers(0, len(text) - MAX_CHARACTERS, rows)]
    groups, column = _groups(source, names)
    layer = choose_layer(merged, found, scores, umap_layout, columns=[column])
    data = pack([replace(layer, snippets=pl.Series(snippets), groups=groups)])
    figure = Section("A figure", figures=[("so that plotly.js is there", go.Figure(go.Scatter(y=[1, 2])))])
    return render("made", "made rows", [], [figure], data, (texts_block(lines), lines.height))


def _groups(source: npt.NDArray[np.int32], names: tuple[str, ...]) -> tuple[NamedGroups, CategoryColumn]:
    """Groups that are the sources, and coarse ones of 20 sources each, with their column."""
    fine = np.arange(SOURCES, dtype=np.int32)
    parents = {"coarse": fine // 20, "fine": fine}
    found = Groups(np.arange(len(source)), source, source, source < 0, parents, {}, len(source), 1)
    summaries = {
        level: tuple(
            GroupSummary(level, group, f"{level} topic {group}, of words", (), rows, ((names[0], 1.0),), None, ())
            for group, rows in enumerate(found.sizes(level).tolist())
        )
        for level in parents
    }
    column = CategoryColumn("group", "group", source, [one.name for one in summaries["fine"]])
    return NamedGroups(found, summaries), column


def plotly_page(source: npt.NDArray[np.int32], xy: npt.NDArray[np.float32]) -> str:
    """Write the same points with plotly: one WebGL trace, coloured by source, in one file."""
    marker = {"size": 2, "color": source, "colorscale": "Turbo"}
    figure = go.Figure(go.Scattergl(x=xy[:, 0], y=xy[:, 1], mode="markers", marker=marker))
    figure.update_layout(dragmode="pan", width=WINDOW["width"], height=WINDOW["height"], uirevision=1)
    done = (
        "var mark = document.createElement('p'); mark.id = 'drawn'; mark.textContent = '.'; document.body.append(mark);"
    )
    return plotly.io.to_html(figure, include_plotlyjs=True, post_script=done)


def regl_page(source: npt.NDArray[np.int32], xy: npt.NDArray[np.float32]) -> str:
    """Write the same points with regl-scatterplot, coloured by source, in one file."""
    entry = Path(__file__).with_name("regl_scatterplot.js")
    command = [RIVALS / ".bin" / "esbuild", entry, "--bundle", "--minify", "--format=iife"]
    script = subprocess.run(command, check=True, capture_output=True, text=True, env={"NODE_PATH": str(RIVALS)}).stdout
    units = 2 * (xy - xy.min(axis=0)) / np.ptp(xy, axis=0).max() - 1
    arrays = {"x": units[:, 0], "y": units[:, 1], "source": source.astype(np.uint16)}
    data = "".join(
        f'<script type="x" id="{name}">{b64encode(np.ascontiguousarray(array).tobytes()).decode()}</script>'
        for name, array in arrays.items()
    )
    canvas = '<canvas style="width: {width}px; height: {height}px"></canvas>'.format(**WINDOW)
    return f'<!doctype html><meta charset="utf-8"><body style="margin: 0">{canvas}{data}<script>{script}</script>'


def measure_page(
    chromium: Any, page: Path, drawn: str, ready: str, handle: str, search: str | None = None
) -> PageTiming:
    """Open a page, drag its map and measure. search: JavaScript that searches and returns milliseconds."""
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
    found = tab.evaluate(search) if search else {}
    context.close()
    return PageTiming(page.stat().st_size, points, whole, frames, found)


if __name__ == "__main__":
    for figure in bench():
        print(figure)
