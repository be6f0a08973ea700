"""The snippets of a page: the beginning of every row's text, in Python and in a real browser."""

import gzip
from base64 import b64decode
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedkit.analysis import stage as stage_module
from embedkit.analysis.merged import open_merged
from embedkit.analysis.options import Options
from embedkit.analysis.page import snippets as snippets_module
from embedkit.analysis.page.carried_texts import pack_texts
from embedkit.analysis.page.shared_beginnings import without_beginning
from embedkit.analysis.page.snippets import fit_snippets, read_snippets
from embedkit.analysis.stage import analyze
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support import browser
from tests.support.browser import until

SHARED = "You are a cook. Answer yes or no, and nothing else. Is it food? "
FOODS = ("burger", "bread  with\nbutter", "stone", "\x1e\x00 salt", "世界 food", "")
OTHERS = ("the art  of it", "parts of artists", "c++ of C", "你好世界和平", "Café", "\ufeffmark")
NO_MAP = Options(map_rows=0, groups=0, components=2, extremes=1, duplicates=0, findings=0)
no_browser = pytest.mark.skipif(browser.program() is None, reason="there is no Chromium; `make browser` installs it")


@pytest.fixture(scope="module")
def run(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A source whose prompts share their beginning, and one whose prompts do not."""
    folder = tmp_path_factory.mktemp("snippets")
    chats = [chat(SHARED + food, "no") for food in FOODS] + [chat(text, "yes") for text in OTHERS]
    data = write_chats(folder / "chats.parquet", chats, ["cook"] * len(FOODS) + ["other"] * len(OTHERS))
    embedkit("run", *hash_request(data, tokenizer_only, folder), "--shards", 1)
    return RunFolder(folder / "run")


def unpacked(block: str) -> list[str]:
    return gzip.decompress(b64decode(block)).decode().split("\x1e")


def test_every_row_has_the_part_that_differs(run: RunFolder) -> None:
    merged = open_merged(run)
    found = read_snippets(merged, np.arange(len(FOODS) + len(OTHERS)))
    cook = ["... burger", "... bread with butter", "... stone", "... salt", "... 世界 food", SHARED.strip()]
    other = ["the art of it", "parts of artists", "c++ of C", "你好世界和平", "Café", "\ufeffmark"]
    assert found.to_list() == [*cook, *other]
    assert read_snippets(merged, np.array([2, 7])).to_list() == ["... stone", "parts of artists"]


@given(st.text(), st.text(), st.booleans(), st.integers(1, 20))
@example("a b c", "a b", True, 9)
@example("... a", "", False, 3)
def test_a_snippet_is_what_follows_the_beginning(text: str, beginning: str, begins: bool, length: int) -> None:
    """On one line, and cut."""
    whole = beginning + text if begins else text
    line = pl.DataFrame({"text": [whole], "shared": [beginning]})
    rest = without_beginning(whole, beginning)[: 4 * length]
    plain = " ".join("".join(" " if ord(each) < 32 or ord(each) == 127 else each for each in rest).split())
    assert line.select(snippets_module._snippet(length)).item() == plain[:length]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=50), min_size=1), st.integers(0, 400))
def test_snippets_fit_their_room_at_one_length(texts: list[str], room: int) -> None:
    block, length = fit_snippets(pl.Series(texts), room)
    assert len(block) <= room
    if length:
        assert unpacked(block) == [text[:length] for text in texts]
    assert fit_snippets(pl.Series(texts), 10**6)[1] == snippets_module.MAX_CHARACTERS


@pytest.fixture(scope="module")
def page(run: RunFolder) -> Path:
    """The page carries the whole texts of the extremes only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_module, "pack_texts", partial(pack_texts, max_rows=0))
        analyze(run, NO_MAP)
    return run.analysis / "index.html"


@pytest.fixture
def tab(chromium: Any, page: Path) -> Iterator[Any]:
    with browser.opened(chromium, page, viewport={"width": 1300, "height": 900}) as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        yield tab


@pytest.mark.slow
@no_browser
def test_hovering_over_any_row_shows_its_beginning(tab: Any) -> None:
    shown = []
    for i in range(len(FOODS) + len(OTHERS)):
        x, y = tab.evaluate(
            f"""() => {{ const {{ map, session: {{ rows }} }} = modules.main, box = map.canvas.getBoundingClientRect();
            const [x, y] = map.toScreen(rows.x[{i}], rows.y[{i}]);
            return [box.x + x, box.y + y]; }}"""
        )
        tab.mouse.move(x, y)
        shown.append(tab.inner_text("#tip").splitlines()[-1].strip())
    for i, begins in ((0, "... burger"), (4, "... 世界 food"), (7, "parts of artists"), (9, "你好世界和平")):
        assert shown[i] == begins


@pytest.mark.slow
@no_browser
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("art", [0]),
        ("ART*", [0, 1]),
        ('"art of"', [0]),
        ("of -art", [1, 2]),
        ('-"the art" -eat*', [1, 2, 3, 4, 5]),
        ("c++", [2]),
        ("世界", [3]),
        ("cafe", []),
        ("café", [4]),
        ("mark", [5]),
        ('"unclosed phrase', []),
    ],
)
def test_a_search_has_words_phrases_and_exclusions(tab: Any, typed: str, found: list[int]) -> None:
    """In the snippets of most rows, and in the whole texts of the few that the page carries."""
    assert tab.evaluate("modules.main.session.rows.texts.id.length") < len(FOODS)
    tab.evaluate("(q) => modules.main.session.update({ q })", typed)
    until(tab, "modules.main.session.selection.active")
    positions = tab.evaluate("Array.from(modules.main.session.selection.positions)")
    others = [i - len(FOODS) for i in positions if i >= len(FOODS)]
    assert others == found
