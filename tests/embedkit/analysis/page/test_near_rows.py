"""The nearest rows of a row, on a page from disk: those that the file carries, click by click, with a way back."""

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from embedkit.analysis import stage as stage_module
from embedkit.analysis.options import Options
from embedkit.analysis.page.carried_texts import pack_texts
from embedkit.analysis.stage import analyze
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support import browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

ROWS = 40
OPTIONS = Options(map_rows=0, groups=0, components=1, extremes=1, duplicates=0, findings=0)


@pytest.fixture(scope="module")
def run(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("near")
    data = write_chats(folder / "chats.parquet", [chat(f"prompt {i}", "yes") for i in range(ROWS)], ["s"] * ROWS)
    embedkit("run", *hash_request(data, tokenizer_only, folder), "--shards", 1)
    return RunFolder(folder / "run")


def listed(tab: Any) -> list[int]:
    return [int(each.get_attribute("title").split()[-1]) for each in tab.locator(".near button").all()]


def test_a_walk_goes_from_neighbour_to_neighbour_and_back(chromium: Any, run: RunFolder) -> None:
    analyze(run, OPTIONS)
    near = pl.read_parquet(run.analysis / "neighbors.parquet")
    nearest = {row["id"]: row["neighbors"] for row in near.iter_rows(named=True)}
    with browser.opened(chromium, run.analysis / "index.html", "#row=5") as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        assert listed(tab) == nearest[5]
        line = tab.locator(".near button").nth(2)
        cosine = near.filter(pl.col("id") == 5)["cosines"][0][2]
        assert line.inner_text().splitlines() == [f"{cosine:.3f} s", f"prompt {nearest[5][2]}"]
        line.click()
        second = nearest[5][2]
        assert tab.inner_text("#row h2") == f"Row with id {second}"
        assert listed(tab) == nearest[second]
        tab.click("#back")
        assert tab.inner_text("#row h2") == "Row with id 5"
        assert tab.locator("#back").count() == 0


def test_a_row_that_is_not_carried_has_no_list(chromium: Any, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "pack_texts", partial(pack_texts, max_rows=0))
    analyze(run, OPTIONS)
    carried = set(pl.read_parquet(run.analysis / "pc_extremes.parquet")["id"])
    other = next(i for i in range(ROWS) if i not in carried)
    with browser.opened(chromium, run.analysis / "index.html", f"#row={other}") as tab:
        tab.wait_for_selector("#row h2")
        assert tab.locator(".near").count() == 0
        assert "embedkit view run" in tab.inner_text("#row")
        tab.evaluate(f"modules.main.session.update({{ row: {min(carried)} }})")
        assert len(listed(tab)) == 10


def test_without_neighbours_there_is_no_list(chromium: Any, run: RunFolder) -> None:
    analyze(run, Options(map_rows=0, groups=0, components=1, duplicates=0, findings=0, neighbors=0))
    with browser.opened(chromium, run.analysis / "index.html", "#row=5") as tab:
        tab.wait_for_selector("#row h2")
        assert tab.locator(".near").count() == 0
