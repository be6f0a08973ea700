"""The tabs "Worth reading" and "Duplicates and dropped rows" in a real browser, on a run with planted rows."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from embedkit.analysis.options import Options
from embedkit.analysis.stage import analyze
from embedkit.run import RunFolder
from tests.embedkit.analysis.page.test_access import AXE, faults, needs_axe
from tests.support import browser
from tests.support.chosen_run import Row, chosen_run
from tests.support.planted import plant, shifted
from tests.support.strange_rows import SAME_PROMPT, clustered, ordinary_rows, planted_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

NASTY = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'><b>b</b>"
ACROSS, WITHIN, CHAIN = (0, 1), (3, 6), (2, 5, 8)
"""Ids of planted near-duplicates: across sources, within one, and a group whose ends are not near."""
READING, NEAR = "#tab=Worth+reading", "#tab=Duplicates+and+dropped+rows"
COUNTS = [  # at least, pairs, across sources, groups, rows removed
    (0.95, 4, 1, 3, 4),
    (0.965, 4, 1, 3, 4),
    (0.975, 2, 1, 2, 2),
    (0.985, 1, 0, 1, 1),
    (0.999, 0, 0, 0, 0),
]


def rows() -> list[Row]:
    ordinary = ordinary_rows()
    found = ordinary + planted_rows(ordinary)
    words = found[0].prompt.split()
    words[2], words[5] = "swapped", "twice"
    found[1] = Row(" ".join(words), found[0].response, found[0].think, "beta")
    found[SAME_PROMPT[0]] = replace(found[SAME_PROMPT[0]], response=NASTY)
    late = "the beginning that both rows share. " * 90
    found[3] = replace(found[3], prompt=f"{late}first end")
    found[6] = replace(found[6], prompt=f"{late}second end")
    return found


def make(folder: Path) -> RunFolder:
    """The run: three rows of gamma without an answer are dropped."""
    kept = rows()
    run = chosen_run(folder, [*kept, *[Row(f"never answered {i}", "", source="gamma") for i in range(3)]])
    vectors = clustered([row.source for row in kept])
    vectors[ACROSS[1]] = shifted(vectors[[ACROSS[0]]], 0.02)[0]
    vectors[WITHIN[1]] = shifted(vectors[[WITHIN[0]]], 0.01)[0]
    for seed, id_ in enumerate(CHAIN[1:]):
        vectors[id_] = shifted(vectors[[CHAIN[0]]], 0.03, seed)[0]
    plant(run, vectors)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = make(tmp_path_factory.mktemp("reading"))
    analyze(run, Options(map_rows=0, groups=0, components=3))
    return run


@pytest.fixture(scope="module")
def findings(run: RunFolder) -> list[dict[str, Any]]:
    return pl.read_parquet(run.analysis / "findings.parquet").to_dicts()


def opened(chromium: Any, run: RunFolder, link: str, width: int = 1300, **options: Any) -> Any:
    size = {"width": width, "height": 900}
    return browser.opened(chromium, run.analysis / "index.html", link, viewport=size, **options)


def ready(tab: Any, place: str = "reading") -> None:
    tab.wait_for_selector(f"#{place} .beside", timeout=30_000)
    tab.wait_for_selector("#stage[data-ready]", state="attached", timeout=30_000)


def texts(tab: Any, side: int, place: str = "reading") -> list[str]:
    return [str(text) for text in tab.locator(f"#{place} article").nth(side).locator("pre").all_text_contents()]


def test_the_second_tab_begins_with_findings_of_all_kinds(
    chromium: Any, run: RunFolder, findings: list[dict[str, Any]]
) -> None:
    with opened(chromium, run, "") as tab:
        assert tab.locator("[role=tab]").nth(1).inner_text() == "Worth reading"
        tab.locator("[role=tab]").nth(1).click()
        ready(tab)
        lines = tab.locator("#reading .lines button").all_inner_texts()
        assert lines == [
            f"{one['kind'].replace('_', ' ')}: row {one['row']} of {one['dataset_source']}" for one in findings[:10]
        ]
        assert tab.text_content("#reading h3") == findings[0]["reason"]
        kinds = tab.locator(".kinds > li > button").all_text_contents()
        assert kinds[0] == "begin herefirst 10 of all kinds"
        assert "same prompt1" in kinds
        assert (
            "unrelated answers: not computed, think and response were not both embedded"
            in tab.locator(".kinds .none").all_inner_texts()
        )


def test_a_finding_shows_its_reason_and_both_rows(
    chromium: Any, run: RunFolder, findings: list[dict[str, Any]]
) -> None:
    """Texts are shown as they are, whatever tags they have."""
    finding = next(one for one in findings if one["kind"] == "same_prompt")
    metadata = pl.read_parquet(run.metadata)
    with opened(chromium, run, f"{READING}&kind=same_prompt") as tab:
        ready(tab)
        assert tab.text_content("#reading h3") == finding["reason"]
        one, other = (metadata.row(id_, named=True) for id_ in (finding["id"], finding["compared_ids"][0]))
        assert texts(tab, 0) == [one[name] for name in ("user_prompt", "think_text", "response_text")]
        assert texts(tab, 1) == [other[name] for name in ("think_text", "response_text")]
        assert "the same" in tab.locator("#reading article").nth(1).inner_text()
        assert NASTY in tab.inner_text("#reading")
        assert tab.evaluate("window.hacked") is None
        assert tab.locator("#reading article pre :is(b, img, script)").count() == 0


def test_words_that_differ_are_marked(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run, f"{NEAR}&pair=0-1") as tab:
        ready(tab, "pairs")
        words = rows()[0].prompt.split()
        assert tab.locator("#pairs article del").all_text_contents() == [words[2], words[5]]
        assert tab.locator("#pairs article ins").all_text_contents() == ["swapped", "twice"]
        lines = [
            tab.locator(f"#pairs article {tag}").first.evaluate("e => getComputedStyle(e).textDecorationLine")
            for tag in ("del", "ins")
        ]
        assert lines == ["line-through", "underline"]
        assert texts(tab, 0, "pairs")[0] == rows()[0].prompt
        assert texts(tab, 1, "pairs")[0] == rows()[1].prompt


def test_a_late_difference_is_shown(chromium: Any, run: RunFolder) -> None:
    """It is after the characters that the page carries of every text."""
    with opened(chromium, run, f"{NEAR}&pair=3-6") as tab:
        ready(tab, "pairs")
        assert texts(tab, 0, "pairs")[0].endswith("both rows share. first end")
        assert texts(tab, 0, "pairs")[0].startswith("[... 3,")
        assert tab.locator("#pairs article del").first.text_content() == "first"
        assert tab.locator("#pairs article ins").first.text_content() == "second"
        assert "embedkit neighbors run --id 3 --full-texts" in tab.inner_text("#pairs .command")


def test_show_more_shows_whole_texts_with_their_differences(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run, f"{NEAR}&pair=3-6") as tab:
        ready(tab, "pairs")
        tab.locator("#pairs .compared .more").click()
        tab.wait_for_selector("#pairs .compared .more:text('show less')")
        whole = [row.prompt for row in rows()]
        assert [texts(tab, side, "pairs")[0] for side in (0, 1)] == [whole[3], whole[6]]
        assert tab.locator("#pairs article del").all_text_contents() == ["first"]
        assert tab.locator("#pairs article ins").all_text_contents() == ["second"]
        assert tab.locator("#pairs .command").count() == 0
        tab.locator("#pairs .compared .more").click()
        assert texts(tab, 0, "pairs")[0].endswith("both rows share. first end")
        assert texts(tab, 0, "pairs")[0].startswith("[... 3,")


@pytest.mark.parametrize("has_files", [True, False])
def test_show_more_shows_what_there_is(
    chromium: Any, run: RunFolder, findings: list[dict[str, Any]], tmp_path: Path, has_files: bool
) -> None:
    """Whole texts, or without their files what the page carries."""
    page = run.analysis_page
    if not has_files:
        page = Path(shutil.copy(page, tmp_path))
    with browser.opened(chromium, page, f"{READING}&kind=loops") as tab:
        ready(tab)
        finding = next(one for one in findings if one["kind"] == "loops")
        short = texts(tab, 0)[1]
        phrase = finding["reason"].split('"')[1]
        assert phrase in short
        assert short.count("[...") == 2
        tab.locator("#reading .more").focus()
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#reading .more:text('show less')")
        (long,) = [text for text in texts(tab, 0) if phrase in text]
        assert long.startswith(finding["think_text"][:2500])
        assert (long == finding["think_text"]) == has_files
        assert tab.evaluate("document.activeElement.textContent") == "show less"


def test_a_link_opens_the_row_on_the_map(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run, f"{READING}&kind=same_prompt") as tab:
        ready(tab)
        tab.locator("#reading article").nth(1).locator("a").click()
        tab.wait_for_selector("#row h2:visible")
        assert tab.inner_text("#row h2") == f"Row with id {SAME_PROMPT[1]}"
        tab.go_back()
        ready(tab)
        assert tab.is_visible("#reading h3")


def test_keys_and_buttons_go_through_the_findings(
    chromium: Any, run: RunFolder, findings: list[dict[str, Any]]
) -> None:
    reasons = [one["reason"] for one in findings]
    with opened(chromium, run, READING) as tab:
        ready(tab)
        tab.focus("[data-tab='Worth reading']")
        tab.keyboard.press("n")
        assert tab.text_content("#reading h3") == reasons[1]
        tab.locator("#reading .steps button").nth(1).click()
        assert tab.text_content("#reading h3") == reasons[2]
        tab.keyboard.press("ArrowRight")
        assert tab.text_content("#reading h3") == reasons[3]
        assert "4 of 10" in tab.inner_text("#reading .steps")
        for key in ("p", "ArrowLeft", "ArrowLeft", "ArrowLeft", "p"):
            tab.keyboard.press(key)
        assert tab.text_content("#reading h3") == reasons[0]
        assert tab.locator("#reading [aria-current]").count() == 1
        tab.keyboard.press("n")
        tab.wait_for_timeout(300)
        assert "finding=2" in tab.evaluate("location.hash")
        link = str(tab.evaluate("location.hash"))
    with opened(chromium, run, link) as tab:
        ready(tab)
        assert tab.text_content("#reading h3") == reasons[1]


def test_a_click_on_a_kind_and_a_line_opens_it(chromium: Any, run: RunFolder, findings: list[dict[str, Any]]) -> None:
    outliers = [one for one in findings if one["kind"] == "long_thoughts"]
    with opened(chromium, run, READING) as tab:
        ready(tab)
        tab.locator(".kinds > li > button", has_text="long thoughts").click()
        assert tab.text_content("#reading h3") == outliers[0]["reason"]
        assert tab.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
        assert tab.locator("#reading .lines button").count() == len(outliers)
    with opened(chromium, run, f"{READING}&finding={findings[-1]['rank']}") as tab:
        ready(tab)
        assert tab.text_content("#reading h3") == findings[-1]["reason"]


def test_a_finding_beside_several_rows(chromium: Any, run: RunFolder, findings: list[dict[str, Any]]) -> None:
    finding = next(one for one in findings if one["kind"] == "exact_duplicates")
    with opened(chromium, run, f"{READING}&kind=exact_duplicates") as tab:
        ready(tab)
        buttons = tab.locator("#reading .choice button")
        assert buttons.all_inner_texts() == [f"row {row}" for row in finding["compared_rows"]]
        buttons.nth(1).click()
        heading = tab.locator("#reading article").nth(1).locator("h4").inner_text()
        assert heading == f"row {finding['compared_rows'][1]} of {finding['dataset_source']}"
        assert tab.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"


@pytest.mark.parametrize(("least", "pairs", "across", "groups", "removed"), COUNTS)
def test_the_slider_counts_planted_pairs(
    chromium: Any, run: RunFolder, least: float, pairs: int, across: int, groups: int, removed: int
) -> None:
    kept = len(rows())
    with opened(chromium, run, NEAR) as tab:
        tab.wait_for_selector("#pairs .counts")
        at = tab.evaluate(
            "async (least) => (await modules.data.jsonOf('pairs'))[0].counts.findIndex((c) => c.threshold === least)",
            least,
        )
        tab.locator("#near").fill(str(at))
        counts = tab.inner_text("#pairs .counts")
        said = f"{pairs} {'pair' if pairs == 1 else 'pairs'} ({across or 'none'} across sources)"
        assert counts.startswith(f"At {least:g} or more: {said}")
        assert (f"in {groups} groups" in counts) == (groups > 0)
        assert f"{removed} of {kept} rows would be removed" in counts
        assert tab.locator("#pairs .lines button").count() == pairs
        tab.wait_for_timeout(300)
        assert ("near=" in tab.evaluate("location.hash")) == (least > 0.95)


def test_pairs_across_sources_come_first(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run, NEAR) as tab:
        ready(tab, "pairs")
        lines = tab.locator("#pairs .lines button").all_inner_texts()
        assert [line.split()[0] for line in lines] == ["0.9800", "0.9900", "0.9700", "0.9700"]
        assert "alpha / beta" in lines[0]
        assert tab.locator("#pairs article h4").all_inner_texts() == ["row 0 of alpha", "row 1 of beta"]
        tab.fill("#pairs [type=search]", "GAM")
        browser.until(tab, "document.querySelectorAll('#pairs .lines button').length === 2")
        tab.fill("#pairs [type=search]", "")
        browser.until(tab, "document.querySelectorAll('#pairs .lines button').length === 4")
        tab.select_option("#pairs select", "lowest")
        lines = tab.locator("#pairs .lines button").all_inner_texts()
        assert [line.split()[0] for line in lines] == ["0.9800", "0.9700", "0.9700", "0.9900"]
        tab.locator("#pairs .lines button").last.click()
        assert tab.locator("#pairs article h4").all_inner_texts() == ["row 3 of alpha", "row 6 of alpha"]
        tab.keyboard.press("p")
        assert tab.locator("#pairs article h4").first.inner_text() == "row 2 of gamma"


def test_dropped_rows_are_listed_by_reason(chromium: Any, run: RunFolder) -> None:
    with opened(chromium, run, NEAR) as tab:
        panel = tab.locator("[role=tabpanel]:not([hidden])")
        kept = len(rows())
        assert f"3 of {kept + 3} chosen rows" in panel.inner_text()
        assert "3 no_assistant (the chat has no answer)" in panel.inner_text()
        assert 'embedkit.open_run("output/run").dropped' in panel.inner_text()
        line = panel.locator("table").last.locator("tr").nth(1).locator("td").all_inner_texts()
        assert line == ["gamma", "7.0%", "3", "43", "3"]


@pytest.mark.parametrize("link", [READING, f"{READING}&kind=same_prompt", f"{NEAR}&pair=3-6"])
def test_a_phone_cuts_nothing(chromium: Any, run: RunFolder, link: str) -> None:
    with opened(chromium, run, link, 390) as tab:
        tab.wait_for_selector(".beside:visible", timeout=30_000)
        tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        cut = tab.evaluate(
            """() => [...document.querySelectorAll(".browse *, .bar *, .counts")].filter((e) => e.checkVisibility()
            && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== "visible"
            && !e.matches("input, select")).map((e) => e.outerHTML.slice(0, 200))"""
        )
        assert cut == []
        one, other = (tab.locator(".beside:visible article").nth(at).bounding_box() for at in (0, 1))
        assert one["x"] == other["x"]
        assert other["y"] >= one["y"] + one["height"]


@needs_axe
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_on_both_tabs(chromium: Any, run: RunFolder, width: int, theme: str) -> None:
    found: dict[str, list[str]] = {}
    with opened(chromium, run, READING, width, color_scheme=theme, bypass_csp=True) as tab:
        ready(tab)
        tab.add_script_tag(path=AXE)
        for kind in ("", "same_prompt", "exact_duplicates", "contamination", "loops"):
            tab.evaluate("(kind) => modules.main.session.update({ kind, finding: null })", kind)
            tab.wait_for_timeout(100)
            found[kind] = faults(tab)
        tab.click("[data-tab='Duplicates and dropped rows']")
        ready(tab, "pairs")
        for pair in ("0-1", "3-6"):
            tab.evaluate("(pair) => modules.main.session.update({ pair })", pair)
            tab.wait_for_timeout(100)
            found[pair] = faults(tab)
    assert {where: what for where, what in found.items() if what} == {}


def test_without_findings_the_tabs_say_how_to_get_them(chromium: Any, tmp_path: Path) -> None:
    run = chosen_run(tmp_path, [Row(f"prompt {i}", f"answer {i}") for i in range(5)])
    analyze(run, Options(map_rows=0, groups=0, components=2, neighbors=0, findings=0, duplicates=0))
    with opened(chromium, run, READING) as tab:
        panel = tab.locator("[role=tabpanel]:not([hidden])")
        assert "`embedkit analyze run --findings 20` computes them" in panel.inner_text()
        tab.click("[data-tab='Duplicates and dropped rows']")
        assert "`embedkit analyze run --duplicates 0.95` searches for them" in panel.inner_text()
        assert "None of 5 chosen rows was dropped." in panel.inner_text()


def test_each_view_has_its_own_findings_and_pairs(chromium: Any, tmp_path: Path) -> None:
    """A view of the user shows its own text. Ids of some sources are not their positions."""
    same = [Row(f"question {i}?", f"answer {i // 2}", source="late" if i > 3 else "early") for i in range(8)]
    run = chosen_run(tmp_path, same, views=("combined", "bold"), templates={"bold": "*{response_text}*"})
    analyze(run, Options(map_rows=0, groups=0, components=2, sources=("late",)))
    page = next(run.analysis.glob("only-*/index.html"))
    with browser.opened(chromium, page, READING) as tab:
        tab.wait_for_selector("#reading .opened > *")
        assert tab.inner_text("#reading .opened") == "Nothing was found."
        tab.select_option("#reading select", "1")
        ready(tab)
        assert texts(tab, 0) == ["*answer 2*"]
        assert tab.locator("#reading .text b").first.inner_text() == "view bold"
        assert tab.locator("#reading h4").all_inner_texts() == ["row 4 of late", "row 5 of late"]
        tab.click("[data-tab='Duplicates and dropped rows']")
        ready(tab, "pairs")
        assert tab.locator("#pairs .lines button").all_inner_texts() == [
            "1.0000 4, 5 late",
            "1.0000 6, 7 late",
        ]
        assert tab.locator("#pairs h4").first.inner_text() == "row 4 of late"
        tab.click("[data-tab='map']")
        tab.select_option("#view", "0")  # while the tabs are not shown
        tab.click("[data-tab='Worth reading']")
        browser.until(tab, "document.querySelector('#reading .opened').innerText === 'Nothing was found.'")
        assert tab.locator("#reading .lines button").count() == 0


def test_damaged_data_are_named(chromium: Any, run: RunFolder, tmp_path: Path) -> None:
    text = (run.analysis / "index.html").read_text(encoding="utf-8")
    (tmp_path / "index.html").write_text(re.sub('(id="data-reading">)[^<]*', r"\1AAAA", text), encoding="utf-8")
    with browser.opened(chromium, tmp_path / "index.html", READING) as tab:
        tab.wait_for_selector("#reading .opened > p")
        assert tab.inner_text("#reading .opened").startswith("The data of this tab cannot be read (")
        tab.click("[data-tab='Duplicates and dropped rows']")
        ready(tab, "pairs")
