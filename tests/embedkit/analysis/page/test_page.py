"""The page in a real browser without a network: the map and its controls."""

import csv
import io
import shlex
import shutil
from base64 import b64decode
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from embedkit.analysis import stage as analyze_module
from embedkit.analysis.components.pca import pca, project
from embedkit.analysis.merged import open_merged
from embedkit.analysis.options import Options
from embedkit.analysis.page.carried_texts import pack_texts
from embedkit.analysis.page.layer import choose_layer
from embedkit.analysis.page.pack import pack
from embedkit.analysis.page.render import render
from embedkit.analysis.similarity.umap import UmapLayout
from embedkit.analysis.stage import analyze
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support import browser
from tests.support.browser import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

WIDTH, HEIGHT = 1300, 900
FILL = 0.94
NASTY = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'></script><b>b</b>{{ 7*7 }}"
INTRUDER = """() => {
window.blocked = [];
addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
const add = (tag, properties) => document.body.append(Object.assign(document.createElement(tag), properties));
add("script", { textContent: "window.hacked = 1" });
add("img", { src: "http://127.0.0.1:9/a.png" });
fetch("http://127.0.0.1:9/").catch(() => {});
document.body.setAttribute("onclick", "window.hacked = 1");
document.body.click();
}"""
NO_MAP = Options(map_rows=0, groups=0, components=4, duplicates=0, text_files=0)
ROWS = 80
LONG = "long " * 1800 + "end"


def made(data: Path, model: Path, folder: Path) -> RunFolder:
    """A run whose texts name their rows. The last row has HTML tags wherever a row can have text."""
    words = ("river", "stone", "lamp", "engine")
    chats = [
        chat(f"prompt {i} of the {words[i % 4]}", f"<think>thought {i}</think>answer {i}") for i in range(ROWS - 2)
    ]
    chats += [chat("prompt long", LONG), chat(NASTY, NASTY)]
    sources = [*(("alpha", "beta", "gamma")[i % 3] for i in range(ROWS - 1)), NASTY]
    write_chats(data, chats, sources)
    embedkit("run", *hash_request(data, model, folder), "--max-length", 16_384, "--shards", 1)
    return RunFolder(folder / "run")


def made_with_views(model: Path, folder: Path) -> RunFolder:
    """An analyzed run of 20 rows with the views think (rows 1, 3, ... 19) and response (all rows)."""
    chats = [chat(f"p {i}", f"<think>thought {i}</think>answer {i}" if i % 2 else f"answer {i}") for i in range(20)]
    data = write_chats(folder / "chats.parquet", chats)
    embedkit("run", *hash_request(data, model, folder), "--shards", 1, "--view", "response", "--view", "think")
    run = RunFolder(folder / "run")
    analyze(run, NO_MAP)
    return run


@pytest.fixture(scope="module")
def run(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("atlas")
    run = made(folder / "chats.parquet", tokenizer_only, folder)
    analyze(run, NO_MAP)
    return run


class Look:
    """An open page, and the places of its rows computed from the Parquet file alone."""

    def __init__(self, tab: Any, run: RunFolder) -> None:
        self.tab = tab
        self.rows = pl.read_parquet(run.analysis / "pca.parquet")
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        self.box = tab.locator("#points").bounding_box()

    def places(self, x: str = "pc1", y: str = "pc2") -> npt.NDArray[np.float64]:
        """Pixel of each row on the page by id, while the map shows everything."""
        us = [(self.rows[pc] - self.rows[pc].min()) / (self.rows[pc].max() - self.rows[pc].min()) for pc in (x, y)]
        across, up = (u.to_numpy().astype(np.float64) - 0.5 for u in us)
        left, top, width, height = (self.box[part] for part in ("x", "y", "width", "height"))
        return np.column_stack([left + width * (0.5 + FILL * across), top + height * (0.5 - FILL * up)])

    def lonely(self, count: int) -> list[int]:
        """Ids of the rows that are farthest from all others."""
        places = self.places()
        apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(places))
        return [int(i) for i in np.argsort(-apart.min(axis=1))[:count]]

    def link(self) -> str:
        self.tab.wait_for_timeout(250)
        return str(self.tab.evaluate("location.hash"))

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Opacity of each pixel of the map: (height, width)."""
        height, width, alpha = self.tab.evaluate(
            """() => { const {gl, canvas} = modules.main.map.scatter; modules.main.map.paint();
            const bytes = new Uint8Array(canvas.width * canvas.height * 4), text = [];
            gl.readPixels(0, 0, canvas.width, canvas.height, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
            const alpha = bytes.filter((_, at) => at % 4 === 3);
            for (let at = 0; at < alpha.length; at += 8192)
                text.push(String.fromCharCode(...alpha.subarray(at, at + 8192)));
            return [canvas.height, canvas.width, btoa(text.join(""))]; }"""
        )
        return np.frombuffer(b64decode(alpha), np.uint8).reshape(height, width)[::-1]

    def listed(self) -> list[int]:
        return [int(text.split()[0]) for text in self.tab.locator("#rows button").all_inner_texts()]


def opened(chromium: Any, run: RunFolder, link: str = "", **options: Any) -> AbstractContextManager[Any]:
    size = {"width": WIDTH, "height": HEIGHT}
    return browser.opened(chromium, run.analysis / "index.html", link, **{"viewport": size, **options})


def test_the_map_shows_every_row_at_its_place(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        pixels = look.pixels()
        left, top = look.box["x"], look.box["y"]
        for x, y in look.places():
            assert pixels[round(y - top), round(x - left)] > 0
        assert (pixels > 0).mean() < 0.1


def test_a_click_on_a_row_shows_its_texts(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        metadata = pl.read_parquet(run.metadata)
        for id_ in look.lonely(5):
            tab.mouse.click(*look.places()[id_])
            assert tab.inner_text("#row h2") == f"Row with id {id_}"
            row = metadata.row(id_, named=True)
            texts = tab.locator("#row pre").all_text_contents()
            wanted = [text for text in (row["user_prompt"], row["think_text"], row["response_text"]) if text]
            assert [text[:2500] for text in wanted] == texts[:-1]
            assert texts[-1] == f"embedkit neighbors run --id {id_} --full-texts"
            assert row["dataset_source"] in tab.inner_text("#row dl")
        tab.mouse.click(*look.places()[id_])
        tab.click("#close")
        assert not tab.is_visible("#row")


def test_a_long_text_is_cut_and_says_so(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run, f"#row={ROWS - 2}") as tab:
        Look(tab, run)
        assert f"response, {len(LONG):,} characters, cut here" in tab.inner_text("#row")
        assert len(tab.locator("#row pre").nth(1).text_content()) == 2500


def test_hovering_shows_source_and_the_start_of_the_prompt(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        id_ = look.lonely(1)[0]
        tab.mouse.move(*look.places()[id_])
        row = pl.read_parquet(run.metadata).row(id_, named=True)
        said = tab.text_content("#tip")
        assert row["dataset_source"] in said
        assert row["user_prompt"][:100] in said
        tab.mouse.move(look.box["x"] + 2, look.box["y"] + look.box["height"] / 2)
        assert not tab.is_visible("#tip")


def test_the_legend_hides_and_shows_sources(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        counts = dict(look.rows["dataset_source"].value_counts().iter_rows())
        lines = tab.locator("#sources li")
        assert {
            line.locator(".name").text_content(): int(line.locator(".count").text_content()) for line in lines.all()
        } == counts
        everything = (look.pixels() > 0).sum()
        lines.filter(has_text="alpha").locator("input").uncheck()
        without = (look.pixels() > 0).sum()
        assert 0.4 * everything < without < 0.9 * everything
        hidden = next(id_ for id_ in look.lonely(ROWS) if look.rows["dataset_source"][id_] == "alpha")
        tab.mouse.click(*look.places()[hidden])
        assert tab.locator("#row h2").count() == 0 or tab.inner_text("#row h2") != f"Row with id {hidden}"
        tab.click("#none")
        assert (look.pixels() > 0).sum() == 0
        lines.filter(has_text="beta").hover()
        lines.filter(has_text="beta").locator(".only").click()
        assert 0 < (look.pixels() > 0).sum() < without
        tab.click("#all")
        assert (look.pixels() > 0).sum() == everything


def test_axes_say_what_they_show_and_ticks_stand_at_their_values(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        share = np.load(run.analysis / "pca.npz")["explained_variance_ratio"]
        assert tab.text_content("#over .axis.x") == f"PC1 ({share[0]:.1%} of the variance)"
        for axis, pc, edge, length in (("x", "pc1", "x", "width"), ("y", "pc2", "y", "height")):
            low, high = look.rows[pc].min(), look.rows[pc].max()
            ticks = tab.locator(f"#over .tick.{axis}")
            assert ticks.count() >= 3
            for tick in ticks.all():
                share_of = (float(tick.text_content()) - low) / (high - low) - 0.5
                at = look.box[length] * (0.5 + (FILL if axis == "x" else -FILL) * share_of)
                assert float(tick.get_attribute(edge)) == pytest.approx(at, abs=0.7)
        tab.select_option("#x", "3")
        tab.wait_for_selector("#stage[data-ready=pc3]")
        assert tab.text_content("#over .axis.x").startswith("PC3 (")
        id_ = 11
        tab.evaluate(f"modules.main.map.open({id_})")
        x, y = look.places("pc3", "pc2")[id_]
        ring = tab.locator("#over circle.open")
        tab.wait_for_timeout(100)
        assert float(ring.get_attribute("cx")) == pytest.approx(x - look.box["x"], abs=0.7)
        assert float(ring.get_attribute("cy")) == pytest.approx(y - look.box["y"], abs=0.7)


def test_a_lasso_and_a_box_choose_rows_and_their_ids_are_saved(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        places = look.places()
        middle = np.array([middle_of_widest_gap(places[:, axis]) for axis in (0, 1)])
        first = np.array([look.box["x"] + 3, look.box["y"] + 3])
        inside = {int(i) for i in np.flatnonzero((places < middle).all(axis=1))}
        assert 3 < len(inside) < ROWS - 3
        tab.click("#box")
        drag(tab, [first, middle])
        assert set(look.listed()) == inside
        assert tab.inner_text("#chosen") == f"{len(inside)} rows chosen"
        with tab.expect_download() as download:
            tab.click("#csv")
        assert download.value.suggested_filename == "run-rows.csv"
        lines = list(csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
        facts = ["id", "row", "dataset_source", "num_tokens", "num_turns"]
        assert lines[0] == [*facts, "distance", "begins", "texts", "prompt", "think", "response"]
        chosen = look.rows.filter(pl.col("id").is_in(sorted(inside)))
        wanted = chosen.select("id", "row", "dataset_source", "num_tokens", "num_turns").rows()
        assert [(int(a), int(b), c, int(d), int(e)) for a, b, c, d, e, *_ in lines[1:]] == wanted
        assert all(line[6] and line[7] in ("whole", "cut") for line in lines[1:])
        assert sum(f"prompt {line[0]}" in line[8] for line in lines[1:]) >= len(lines) - 2  # one row has only tags
        corners = [first, [middle[0], first[1]], middle, [first[0], middle[1]], first]
        tab.click("#clear")
        assert look.listed() == []
        tab.click("#lasso")
        drag(tab, corners)
        assert set(look.listed()) == inside
        tab.locator("#rows button").first.click()
        assert tab.inner_text("#row h2") == f"Row with id {min(inside)}"


def test_saved_text_and_the_shown_command_are_run_by_nothing(chromium: Any, run: RunFolder) -> None:
    """By a spreadsheet as a formula, or by the shell."""
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "plain", "a=b", 'say "=x"', "'=1"]
    with opened(chromium, run) as tab:
        Look(tab, run)
        with tab.expect_download() as download:
            tab.evaluate("texts => modules.csv.saveCsv('x.csv', ['source'], texts.map((text) => [text]))", texts)
        with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
            assert [line[0] for line in csv.reader(file)][1:] == [*(f"'{text}" for text in texts[:6]), *texts[6:]]
        for name in ("run", "it's [1] $HOME", "-rf", "é `id`"):
            assert shlex.split(tab.evaluate("name => modules.shell.shellWord(name)", name)) == [
                f"./{name}" if name == "-rf" else name
            ]


def middle_of_widest_gap(values: npt.NDArray[np.float64]) -> int:
    """The middle of the widest gap between values, with at least a quarter of them on either side."""
    middle = np.sort(values)[len(values) // 4 : -len(values) // 4]
    widest = int(np.diff(middle).argmax())
    return round(float(middle[widest : widest + 2].mean()))


def place_of(position: int | str) -> str:
    """JavaScript for the pixel of a row on the map."""
    axes = (f"modules.main.session.rows.{axis}[{position}]" for axis in "xy")
    return f"modules.main.map.toScreen({', '.join(axes)})"


def drag(tab: Any, path: list[Any]) -> None:
    tab.mouse.move(*map(float, path[0]))
    tab.mouse.down()
    for point in path[1:]:
        tab.mouse.move(*map(float, point))
    tab.mouse.up()


def test_search_finds_rows_by_their_words(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        tab.fill("#search", "RIVER prompt")
        tab.wait_for_selector("#rows button")
        assert look.listed() == list(range(0, ROWS - 2, 4))
        assert f'20 of {ROWS} rows have "RIVER" and "prompt"' in tab.inner_text("#chosen")
        assert tab.evaluate("Array.from(modules.main.map.litPositions())") == look.listed()
        assert tab.locator("#rows mark").first.inner_text().lower() in ("river", "prompt")
        tab.fill("#search", "thought 17")
        tab.wait_for_timeout(400)
        assert look.listed() == [17]
        assert "thought 17" in tab.inner_text("#rows button")
        tab.fill("#search", "nowhere")
        tab.wait_for_timeout(400)
        assert look.listed() == []
        assert tab.inner_text("#chosen").startswith("0 of")


def test_a_link_brings_the_view_back(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        tab.select_option("#y", "4")
        tab.wait_for_selector("#stage[data-ready=pc1]")
        tab.select_option("#colour", "tokens")
        tab.mouse.move(look.box["x"] + 300, look.box["y"] + 200)
        tab.mouse.wheel(0, -600)
        tab.locator("#sources li").filter(has_text="gamma").locator("input").uncheck()
        tab.evaluate("modules.main.map.open(9)")
        tab.click("#theme")
        link = look.link()
        state = tab.evaluate(
            "JSON.stringify({...modules.main.session.state, hidden: [...modules.main.session.state.hidden]})"
        )
        ring = tab.locator("#over .open").get_attribute("cx")
    with opened(chromium, run, link) as tab:
        look = Look(tab, run)
        tab.wait_for_timeout(200)
        assert (
            tab.evaluate(
                "JSON.stringify({...modules.main.session.state, hidden: [...modules.main.session.state.hidden]})"
            )
            == state
        )
        assert float(tab.locator("#over .open").get_attribute("cx")) == pytest.approx(float(ring), abs=0.1)
        assert tab.inner_text("#row h2") == "Row with id 9"
        assert tab.input_value("#colour") == "tokens"
        assert not tab.locator("#sources li").filter(has_text="gamma").locator("input").is_checked()
        assert tab.get_attribute("html", "data-theme") == "dark"
        assert look.link() == link


@pytest.mark.parametrize(
    "link", ["#x=99&y=a&map=umap&at=1,2&hide=x&row=-3&colour=red&tab=none", "#%%%", "#row=4000000"]
)
def test_a_broken_link_shows_the_page_as_it_is(chromium: Any, run: RunFolder, link: str) -> None:
    with opened(chromium, run, link) as tab:
        look = Look(tab, run)
        assert (look.pixels() > 0).any()
        assert tab.get_attribute("#tab-map", "aria-selected") == "true"


def test_without_webgl_the_other_tabs_work(chromium: Any, run: RunFolder) -> None:
    context = chromium.new_context(offline=True)
    tab = context.new_page()
    tab.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    tab.goto((run.analysis / "index.html").absolute().as_uri())
    assert tab.inner_text("#stage .note") == "There is no map in this browser (no WebGL 2); everything else is here."
    panel = browser.open_tab(tab, "Principal components")
    tab.wait_for_selector(f"{panel} .figure svg.main-svg")
    context.close()


def test_a_page_that_was_cut_off_says_so(chromium: Any, run: RunFolder, tmp_path: Path) -> None:
    whole = (run.analysis / "index.html").read_text()
    (tmp_path / "cut.html").write_text(whole[: whole.index('id="data-texts"')])
    with browser.opened(chromium, tmp_path / "cut.html") as tab:
        tab.wait_for_selector("#stage .note")
        assert "cannot be read" in tab.inner_text("#stage .note")


def test_tags_in_texts_and_names_are_inert(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run, f"#row={ROWS - 1}") as tab:
        look = Look(tab, run)
        assert tab.locator("#row pre").nth(0).text_content() == NASTY
        assert NASTY in tab.locator("#sources .name").all_text_contents()
        tab.mouse.move(*look.places()[ROWS - 1])
        for control in tab.locator("[role=tab]").all():
            control.click()
            tab.wait_for_timeout(150)
        assert tab.locator("img, b:text-is('b')").count() == 0
        assert tab.evaluate("window.hacked") is None


def test_only_own_scripts_run_and_nothing_is_fetched(chromium: Any, run: RunFolder) -> None:
    context = chromium.new_context(offline=False)
    tab = context.new_page()
    tab.goto((run.analysis / "index.html").absolute().as_uri())
    tab.evaluate(INTRUDER)
    tab.wait_for_timeout(500)
    assert tab.evaluate("window.hacked") is None
    assert {"script-src-elem", "script-src-attr", "img-src", "connect-src"} <= set(tab.evaluate("blocked"))
    context.close()


def test_everything_can_be_done_by_keys(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        tab.focus("#points")
        tab.keyboard.press("+")
        tab.keyboard.press("ArrowRight")
        assert "at=" in look.link()
        tab.keyboard.press("0")
        assert "at=" not in look.link()
        tab.keyboard.press("Enter")
        places, box = look.places(), look.box
        centre = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        nearest = int(np.hypot(*(places - centre).T).argmin())
        assert tab.inner_text("#row h2") == f"Row with id {nearest}"
        tab.keyboard.press("v")
        assert tab.inner_text("#chosen") == f"{ROWS} rows in view"
        tab.keyboard.press("Escape")
        assert not tab.is_visible("#row")
        tab.focus("#tab-map")
        tab.keyboard.press("ArrowRight")
        assert tab.evaluate("document.activeElement.dataset.tab") == "Worth reading"
        assert tab.is_visible("#panel-1")
        named = "button, input, select, canvas, summary"
        for control in tab.locator(f":is({named}):visible").all():
            assert control.evaluate("e => e.ariaLabel || e.labels?.length || e.innerText || e.title || e.placeholder")


def test_a_drag_moves_and_the_wheel_zooms_at_the_pointer(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run) as tab:
        look = Look(tab, run)
        id_ = look.lonely(1)[0]
        x, y = look.places()[id_]
        where = place_of(id_)
        to = [x + (30 if x < WIDTH / 2 else -30), y + (40 if y < HEIGHT / 2 else -40)]
        drag(tab, [[x, y], to])
        moved = tab.evaluate(where)
        assert moved == pytest.approx([to[0] - look.box["x"], to[1] - look.box["y"]], abs=1)
        tab.mouse.wheel(0, -500)
        until(tab, "modules.main.map.viewport().zoom > 1.5")
        assert tab.evaluate(where) == pytest.approx(moved, abs=1)


def test_a_row_in_a_table_leads_to_the_map(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run, "#tab=Extremes") as tab:
        tab.wait_for_selector("#stage[data-ready]", state="attached")
        table = tab.locator("details", has_text="PC2, top")
        table.locator("summary").click()
        ends = pl.read_parquet(run.analysis / "pc_extremes.parquet").filter(pc=2, end="top")
        table.locator("a").first.click()
        tab.wait_for_selector("#row h2:visible")
        assert tab.inner_text("#row h2") == f"Row with id {ends['id'][0]}"
        assert tab.get_attribute("#tab-map", "aria-selected") == "true"


def test_every_figure_is_drawn_in_the_colours_of_the_theme(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run, color_scheme="dark") as tab:
        Look(tab, run)
        figures = 0
        for control in tab.locator("[role=tab]").all()[1:]:
            control.click()
            shown = tab.locator(".figure:visible")
            for figure in shown.all():
                figure.locator("svg.main-svg").first.wait_for()
                assert figure.locator(".point, .points, .hm").count() > 0
                ink = figure.locator("text").first.evaluate("e => getComputedStyle(e).fill")
                assert ink == "rgb(230, 232, 235)"
            figures += shown.count()
        assert figures == tab.locator(".figure").count() == 5
        tab.click("#theme")
        ink = tab.locator(".figure text").first.evaluate("e => getComputedStyle(e).fill")
        assert ink == "rgb(28, 32, 36)"


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(chromium: Any, run: RunFolder, width: int) -> None:
    with opened(chromium, run, viewport={"width": width, "height": 740}, has_touch=width < 500) as tab:
        look = Look(tab, run)
        assert look.box["height"] > 300
        for control in tab.locator("[role=tab]").all():
            control.click()
            tab.wait_for_timeout(300)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_row_without_texts_shows_its_beginning(
    chromium: Any, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, few.path)
    monkeypatch.setattr(analyze_module, "pack_texts", partial(pack_texts, max_rows=0))
    analyze(few, Options(map_rows=0, groups=0, components=1, extremes=2, duplicates=0, findings=0, text_files=0))
    carried = set(pl.read_parquet(few.analysis / "pc_extremes.parquet")["id"])
    missing = next(i for i in range(ROWS) if i not in carried)
    with opened(chromium, few, f"#row={missing}") as tab:
        Look(tab, few)
        assert f"prompt {missing}" in tab.inner_text("#row pre >> nth=0")
        assert f"embedkit neighbors run --id {missing} --full-texts" in tab.inner_text("#row")
        tab.fill("#search", "prompt")
        tab.wait_for_selector("#rows button")
        title = tab.inner_text("#chosen")
        assert f"{ROWS - 1} of {ROWS} rows" in title  # the row of tags has no such word
        assert f"the first 160 characters of each prompt, and all texts of {len(carried)} rows" in title


def test_a_umap_has_one_scale_and_marks_placed_rows(chromium: Any, run: RunFolder, tmp_path: Path) -> None:
    merged = open_merged(run)
    found = pca(merged, 2)
    xy = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32) * [1, 3]
    umap_layout = UmapLayout(np.arange(ROWS), xy.astype(np.float32), np.arange(ROWS) % 2 == 1, 0, 15, 0.1)
    layer = choose_layer(merged, found, project(merged, found), umap_layout, ["a note about the map"])
    page = tmp_path / "index.html"
    page.write_text(render("run", "lead", [], [], pack([layer]), pack_texts(merged)))
    with browser.opened(chromium, page, viewport={"width": WIDTH, "height": HEIGHT}) as tab:
        tab.wait_for_selector("#stage[data-ready=mapx]")
        assert tab.inner_text("#notes") == "a note about the map"
        at = np.array([tab.evaluate(place_of(i)) for i in (0, 1, 2)])
        pixels = np.linalg.norm(at[1:] - at[:1], axis=1)
        units = np.linalg.norm(xy[1:3] - xy[:1], axis=1)
        assert pixels[0] / pixels[1] == pytest.approx(units[0] / units[1], rel=1e-2)
        assert not tab.is_visible("#x")
        box = tab.locator("#points").bounding_box()
        tab.mouse.move(box["x"] + at[1][0], box["y"] + at[1][1])
        assert "placed among its nearest" in tab.inner_text("#tip")
        tab.select_option("#map", "pc")
        tab.wait_for_selector("#stage[data-ready=pc1]")
        assert tab.is_visible("#x")


@pytest.fixture(scope="module")
def two_views(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return made_with_views(tokenizer_only, tmp_path_factory.mktemp("views"))


def test_views_each_have_their_map(chromium: Any, two_views: RunFolder) -> None:
    with browser.opened(chromium, two_views.analysis / "index.html") as tab:
        tab.wait_for_selector("#stage[data-ready]")
        assert tab.evaluate("modules.data.META.layers.map((layer) => layer.view)") == ["think", "response"]
        tab.select_option("#view", "response")
        until(tab, "modules.main.session.rows?.ids.length === 20")
        tab.select_option("#view", "think")
        until(tab, "modules.main.session.rows?.ids.length === 10")
        assert tab.evaluate("Array.from(modules.main.session.rows.ids)") == list(range(1, 20, 2))
        tab.evaluate("modules.main.map.open(7)")
        assert "thought 7" in tab.inner_text("#row")
        assert tab.locator("[role=tab]", has_text="Health").count() == 1
        tab.click("text=Health")
        assert tab.locator("h2:visible").all_inner_texts() == ["Health (think)", "Health (response)"]


def test_views_switched_while_they_unpack_do_not_mix(chromium: Any, two_views: RunFolder) -> None:
    with browser.opened(chromium, two_views.analysis / "index.html", "#view=1") as tab:
        tab.wait_for_selector("#stage[data-ready]")
        tab.evaluate(
            """() => { const buffer = Response.prototype.arrayBuffer;
            Response.prototype.arrayBuffer = async function () {
              await new Promise((done) => setTimeout(done, 1500)); return buffer.call(this); }; }"""
        )
        tab.select_option("#view", "think")
        tab.wait_for_timeout(2200)  # its picture is there, its ids are not
        tab.select_option("#view", "response")
        tab.wait_for_timeout(3000)
        box = tab.locator("#points").bounding_box()
        places = np.array(tab.evaluate(f"Array.from(Array(20).keys(), (i) => {place_of('i')})"))
        for i, (x, y) in enumerate(places):
            tab.mouse.move(box["x"] + x, box["y"] + y)
            ids = [int(j) for j in np.flatnonzero(np.hypot(*(places - places[i]).T) < 1)]
            shown = tab.inner_text("#tip")
            assert any(f"id {j}," in shown and shown.endswith(f"p {j}") for j in ids)


@pytest.mark.parametrize("width", [390, 1440])
def test_tables_break_no_word_or_id(chromium: Any, run: RunFolder, width: int) -> None:
    with opened(chromium, run, "", viewport={"width": width, "height": 900}) as tab:
        panel = browser.open_tab(tab, "Extremes")
        tab.wait_for_selector(f"{panel} table:visible")  # the first table is open
        broken = tab.evaluate(
            """(panel) => [...document.querySelectorAll(`${panel} details[open] :is(th, td)`)].flatMap((cell) => {
            const found = [], walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), range = new Range();
            while (walk.nextNode()) for (const match of walk.currentNode.data.matchAll(/[^\\s<>='/{}*.-]{1,20}/g)) {
              range.setStart(walk.currentNode, match.index);
              range.setEnd(walk.currentNode, match.index + match[0].length);
              if (new Set([...range.getClientRects()].map((box) => box.top)).size > 1) found.push(match[0]);
            }
            return found; })""",
            panel,
        )
        assert broken == []
        table = tab.locator(f"{panel} table").first
        assert table.evaluate("e => e.scrollWidth <= e.parentElement.clientWidth")  # nothing is cut at the side
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_has_no_path_and_no_empty_claim(run: RunFolder) -> None:
    page = (run.analysis / "index.html").read_text()
    assert str(run.path.parent) not in page
    assert str(Path(open_merged(run).config.locations.model).parent) not in page
    assert "not known here" not in page
