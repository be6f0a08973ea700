"""The page with its server behind it, in a real browser. From disk it asks nobody."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.options import Options
from embedkit.analysis.stage import analyze
from embedkit.prepare.extract import view_text
from embedkit.run import RunFolder
from tests.embedkit.analysis.page.test_access import AXE, CONTROLS, faults, focused_by_tab, needs_axe
from tests.embedkit.analysis.page.test_two_maps import halves
from tests.end_to_end.test_whole_run import matrix_of
from tests.support import browser
from tests.support.browser import opened_at, until
from tests.support.chosen_run import Row, chosen_run
from tests.support.merged_runs import cosines_between
from tests.support.served import Client, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]
ROWS = 40
LONG = "long " * 1800 + "<b>end</b>"
LONG_ID = ROWS
SESSION = "modules.main.session"
SIMILARITY = "similarity to the search"
READY = "#stage[data-ready]"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Rows whose prompts begin alike and end differently. The page carries 2,500 characters of a text at most."""
    words = ("river", "stone", "lamp", "engine")
    rows = [
        Row(f"prompt {i} of the {words[i % 4]}", f"answer {i}", think=f"thought{i}", source=f"source {i % 3}")
        for i in range(ROWS)
    ]
    rows.append(Row("a long one", LONG, source="source 0"))
    views = ("combined", "response")
    run = chosen_run(tmp_path_factory.mktemp("served"), rows, views=views, max_length=16_384)
    analyze(run, Options(map_rows=0, groups=0, components=3, duplicates=0, neighbors=0, findings=0, text_files=0))
    return run


@pytest.fixture(scope="module")
def client(run: RunFolder) -> Iterator[Client]:
    with served(run) as found:
        yield found


@pytest.fixture
def tab(chromium: Any, client: Client) -> Iterator[Any]:
    with opened_at(chromium, client.address.url, viewport={"width": 1300, "height": 900}) as found:
        found.wait_for_selector(READY, timeout=30_000)
        yield found


def nearest(run: RunFolder, row: int, view: str = "combined") -> list[int]:
    vectors = matrix_of(run.view_matrix(view))
    cosines = np.nan_to_num(cosines_between(vectors, vectors[[row]])[:, 0], nan=-2)
    cosines[row] = -3
    return [int(i) for i in np.argsort(-cosines, kind="stable")[:10]]


def listed(tab: Any, selector: str = ".near button") -> list[int]:
    titles = [str(each.get_attribute("title")) for each in tab.locator(selector).all()]
    return [int(title.removeprefix("row with id ")) for title in titles]


def open_row(tab: Any, row: int) -> None:
    tab.evaluate(f"{SESSION}.update({{ row: {row} }})")
    tab.wait_for_selector(".near button")


def search(tab: Any, by: str, text: str) -> None:
    tab.select_option("#by", by)
    tab.fill("#search", text)
    tab.keyboard.press("Enter")


def test_a_whole_text_is_read_as_text(tab: Any) -> None:
    open_row(tab, LONG_ID)
    until(tab, f"document.querySelector('#row pre:last-of-type').textContent.length === {len(LONG)}")
    shown = tab.evaluate("[...document.querySelectorAll('#row pre')].map((each) => each.textContent)")
    assert shown == ["a long one", LONG]
    assert tab.locator("#row b:text('end')").count() == 0
    assert "cut here" not in tab.inner_text("#row")
    assert "embedkit" not in tab.inner_text("#row")


def test_a_walk_goes_from_neighbour_to_neighbour_and_back(tab: Any, run: RunFolder) -> None:
    """By keys: the way back has the focus after each step."""
    open_row(tab, 5)
    path = [5]
    for step in (2, 0):
        assert listed(tab) == nearest(run, path[-1])
        assert tab.locator("#back").count() == (len(path) > 1)
        path.append(nearest(run, path[-1])[step])
        tab.locator(".near button").nth(step).focus()
        tab.keyboard.press("Enter")
        assert tab.inner_text("#row h2") == f"Row with id {path[-1]}"
        assert tab.inner_text("#back") == f"back to {path[-2]}"
        until(tab, "document.querySelectorAll('.near button').length === 10")
    for row in (path[1], path[0]):
        assert tab.evaluate("document.activeElement.id") == "back"
        tab.keyboard.press("Enter")
        assert tab.inner_text("#row h2") == f"Row with id {row}"
        assert listed(tab) == nearest(run, row)  # without another request
    assert tab.locator("#back").count() == 0
    assert tab.evaluate("document.activeElement.id") == "close"
    open_row(tab, path[2])
    assert tab.locator("#back").count() == 0  # a row that was opened in another way begins a new walk


def test_an_entry_has_cosine_source_and_beginning(tab: Any, run: RunFolder) -> None:
    open_row(tab, 5)
    vectors = matrix_of(run.view_matrix("combined"))
    first = nearest(run, 5)[0]
    cosine = cosines_between(vectors[[5]], vectors[[first]])[0, 0]
    lines = tab.inner_text(".near button >> nth=0").splitlines()
    word = ("river", "stone", "lamp", "engine")[first % 4]
    assert lines == [f"{cosine:.3f} source {first % 3}", f"prompt {first} of the {word}"]


def test_neighbours_are_those_of_the_view_that_is_shown(tab: Any, run: RunFolder) -> None:
    open_row(tab, 5)
    tab.select_option("#view", "1")
    titles = ",".join(f"row with id {i}" for i in nearest(run, 5, "response"))
    until(tab, f"[...document.querySelectorAll('.near button')].map((each) => each.title).join() === '{titles}'")


def test_a_search_by_meaning_lists_rows_and_colours_the_map(chromium: Any, run: RunFolder) -> None:
    """The first one starts the engine, and the page says so. The colours before it come back after it."""
    rows = pl.read_parquet(run.metadata)
    text = rows.filter(pl.col("id") == 7).select(view_text("combined").alias("text"))["text"][0]
    with served(run) as client, opened_at(chromium, client.address.url) as tab:
        tab.wait_for_selector(READY, timeout=30_000)
        tab.evaluate(
            """() => {
            const asked = document.querySelector("#asked"), parts = { childList: true, subtree: true };
            window.said = [];
            new MutationObserver(() => said.push(asked.innerText)).observe(asked, { ...parts, characterData: true });
            }"""
        )
        tab.select_option("#colour", "tokens")
        search(tab, "meaning", text.replace("\n\n", " "))  # a field has one line
        tab.wait_for_selector("#asked .lines button", timeout=30_000)
        assert any("hash on cpu is starting" in said for said in tab.evaluate("said"))
        until(tab, f"{SESSION}.colouring?.ramp?.about.name === '{SIMILARITY}'")
        found = client.get("search", q=text.replace("\n\n", " "), k=50).json
        assert listed(tab, "#asked .lines button") == [near["id"] for near in found["neighbors"]]
        shades = tab.evaluate(f"[...{SESSION}.colouring.shades]")
        ids = tab.evaluate(f"[...{SESSION}.rows.ids]")
        levels = client.get("similarity", q=text.replace("\n\n", " ")).body
        assert shades == [levels[i] for i in ids]
        assert tab.input_value("#colour") == SIMILARITY
        assert tab.inner_text("#ramp b") == SIMILARITY
        assert tab.inner_text("#chosen") == ""  # the map keeps its colours, so nothing is selected
        tab.click("#asked .lines button >> nth=1")
        assert tab.inner_text("#row h2") == f"Row with id {found['neighbors'][1]['id']}"
        tab.fill("#search", "")
        until(tab, f"{SESSION}.state.colour === 'tokens'")
        assert SIMILARITY not in tab.inner_text("#colour")
        assert not tab.is_visible("#asked")


def test_words_are_searched_in_whole_texts(tab: Any) -> None:
    search(tab, "words", "end -thought1")
    until(tab, "document.querySelector('#chosen').innerText.includes('whole texts')")
    found = f'1 of {ROWS + 1} rows have "end" and not "thought1". Searched: the whole texts of all rows'
    assert tab.inner_text("#chosen") == found
    assert tab.evaluate(f"[...{SESSION}.selection.positions]") == [LONG_ID]
    search(tab, "pattern", "answer [12]$")
    until(tab, f"{SESSION}.selection.positions.length === 2")
    assert tab.evaluate(f"[...{SESSION}.selection.positions]") == [1, 2]
    open_row(tab, 1)
    until(tab, "document.querySelectorAll('#row mark').length > 0")
    assert tab.inner_text("#row mark") == "answer 1"


def test_selected_rows_are_saved_with_whole_texts(tab: Any, run: RunFolder) -> None:
    search(tab, "words", "long")
    until(tab, "document.querySelector('#chosen').textContent.includes('the whole texts of all rows')")
    with tab.expect_download() as download:
        tab.click("#parquet")
    assert download.value.suggested_filename == "run-rows.parquet"
    found = pl.read_parquet(Path(download.value.path()))
    assert found["id"].to_list() == [LONG_ID]
    assert found["response"].to_list() == [LONG]
    assert tab.inner_text("#saved") == ""


def test_a_link_restores_a_search(chromium: Any, client: Client) -> None:
    with opened_at(chromium, client.address.url, "#q=stone&by=meaning&row=3") as tab:
        tab.wait_for_selector("#asked .lines button", timeout=30_000)
        tab.wait_for_selector(".near button")
        assert tab.input_value("#by") == "meaning"
        until(tab, "location.hash.includes('by=meaning')")


def test_the_view_of_the_command_opens_first(chromium: Any, run: RunFolder) -> None:
    with served(run, "response") as client, opened_at(chromium, client.address.url, "#row=5") as tab:
        tab.wait_for_selector(".near button", timeout=30_000)
        assert tab.evaluate("document.querySelector('#view').selectedOptions[0].textContent") == "response"
        assert listed(tab) == nearest(run, 5, "response")


def test_errors_of_the_server_are_shown(chromium: Any, run: RunFolder) -> None:
    """What the file carries is there without the server, too."""
    context = chromium.new_context()
    tab = context.new_page()
    with served(run) as client:
        tab.goto(client.address.url)
        tab.wait_for_selector(READY, timeout=30_000)
        search(tab, "pattern", "a(")
        until(tab, "document.querySelector('#asked').innerText.includes('unclosed group')")
    search(tab, "pattern", "ab")
    until(tab, "document.querySelector('#asked').innerText.includes('Was `embedkit view` stopped?')")
    tab.evaluate(f"{SESSION}.update({{ row: 9 }})")
    until(tab, "document.querySelector('.near').innerText.includes('The server does not answer')")
    assert "prompt 9 of the stone" in tab.inner_text("#row")
    context.close()


def test_from_disk_the_page_asks_nobody_and_says_what_a_server_adds(chromium: Any, run: RunFolder) -> None:
    """`opened` fails if anything is requested."""
    link = "#q=stone&by=meaning&row=40&colour=similarity"
    with browser.opened(chromium, run.analysis_page, link) as tab:
        tab.wait_for_selector(READY, timeout=30_000)
        tab.wait_for_selector("#rows button")
        assert not tab.is_visible("#by")
        assert not tab.is_visible("#asked")
        assert '10 of 41 rows have "stone"' in tab.inner_text("#chosen")
        assert tab.inner_text("#row .command") == "embedkit neighbors run --id 40 --full-texts"
        what = "embedkit view run serves this page with whole texts, nearest rows and search by meaning."
        assert tab.inner_text("#row p:last-of-type") == what
        assert "2,500" not in tab.inner_text("#row pre >> nth=0")
        assert f"response, {len(LONG):,} characters, cut here" in tab.inner_text("#row")
        assert tab.evaluate("document.documentElement.dataset.server") == ""


@needs_axe
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_with_a_server(chromium: Any, client: Client, width: int, theme: str) -> None:
    look: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "color_scheme": theme}
    link = "#q=stone&by=meaning&row=3"
    with opened_at(chromium, client.address.url, link, bypass_csp=True, **look) as tab:
        tab.wait_for_selector("#asked .lines button", timeout=30_000)
        tab.wait_for_selector(".near button")
        tab.click(".near button >> nth=0")
        tab.wait_for_selector(".near button")
        tab.add_script_tag(path=AXE)
        assert faults(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_tab_reaches_every_control_of_a_served_page(chromium: Any, client: Client) -> None:
    with opened_at(chromium, client.address.url, "#q=stone&by=meaning&row=3") as tab:
        tab.wait_for_selector("#asked .lines button", timeout=30_000)
        tab.wait_for_selector(".near button")
        stops = focused_by_tab(tab)
        assert set(tab.evaluate(CONTROLS)) <= {stop["place"] for stop in stops}
        assert [stop for stop in stops if not stop["outlined"]] == []


def test_two_maps_have_the_whole_texts(chromium: Any, client: Client, run: RunFolder) -> None:
    """Both frames are the page of the server, with a view each."""
    with opened_at(chromium, client.address.url, "side_by_side.html", viewport={"width": 1440, "height": 900}) as tab:
        two = halves(tab)
        assert [frame.evaluate(f"{SESSION}.places.layer.view") for frame in (two.left, two.right)] == [
            "combined",
            "response",
        ]
        two.left.evaluate(f"modules.main.map.open({LONG_ID})")
        two.right.wait_for_selector("#row pre:has-text('<b>end</b>')")
        two.right.click("#close")
        until(two.left, f"{SESSION}.state.row === null")
        two.left.select_option("#by", "pattern")
        two.left.fill("#search", "answer 1[0-2]")
        until(two.right, f"{SESSION}.wholeTexts?.isDone && {SESSION}.selection.positions.length === 3")
        assert two.right.input_value("#by") == "pattern"
