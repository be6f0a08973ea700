"""The numbered files of whole texts beside the page, and what a browser gets from them without a server."""

import gzip
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.options import Options
from embedkit.analysis.page import text_files
from embedkit.analysis.page.text_files import remove_text_files, rows_that_fit, write_text_files
from embedkit.analysis.stage import analyze
from embedkit.run import RunFolder
from tests.support import browser, firefox
from tests.support.browser import opened, opened_at, until
from tests.support.chosen_run import Row, chosen_run

LONG = "long " * 1800 + "</script><b>end</b> 世界"
ROWS = [
    *(Row(f"prompt {i} " + "x" * 40 * i, f"answer {i}", think=f"thought {i}", source=f"s{i % 3}") for i in range(30)),
    Row("a long one", LONG, source="rare"),
]
NO_MAP = Options(map_rows=0, groups=0, components=2, extremes=1, duplicates=0, neighbors=0, findings=0)
READY = "#stage[data-ready]"
no_browser = pytest.mark.skipif(browser.program() is None, reason="there is no Chromium; `make browser` installs it")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    found = chosen_run(tmp_path_factory.mktemp("texts"), ROWS, max_length=16_384)
    analyze(found, NO_MAP)
    return found


def texts_in(file: Path) -> dict[int, dict[str, str]]:
    """The texts by name of each row of a file."""
    block = re.search(r'id="data-texts">([^<]*)<', file.read_text(encoding="utf-8"))
    assert block is not None
    plain = json.loads(gzip.decompress(b64decode(block[1])))
    return {row: {name: column[at] for name, column in plain["columns"].items()} for at, row in enumerate(plain["id"])}


def packed_bytes(merged: Merged) -> int:
    return sum(len(text_files._block(range(frame.height), frame)) for _, frame in text_files.whole_texts(merged))


def expected(ids: list[int]) -> dict[int, dict[str, str]]:
    return {i: {"prompt": ROWS[i].prompt, "think": ROWS[i].think, "response": ROWS[i].response} for i in ids}


@pytest.mark.parametrize(("file_bytes", "files"), [(10**9, 1), (5_000, 4), (1, len(ROWS))])
def test_all_rows_are_there_whole_and_in_order(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_bytes: int, files: int
) -> None:
    monkeypatch.setattr(text_files, "FILE_BYTES", file_bytes)
    starts = write_text_files(open_merged(run), tmp_path / "texts")
    written = sorted((tmp_path / "texts").iterdir())
    assert [path.name for path in written] == [f"{at:05}.html" for at in range(files)]
    found = [texts_in(path) for path in written]
    assert starts == [min(rows) for rows in found]
    ids = [row for rows in found for row in rows]
    assert ids == list(range(len(ROWS)))
    assert {row: texts for rows in found for row, texts in rows.items()} == expected(ids)


@given(st.lists(st.integers(0, len(ROWS) - 1), unique=True), st.integers(1, 400), st.integers(1, 3))
def test_any_rows_in_batches_of_any_size_are_there_once(
    run: RunFolder, ids: list[int], file_bytes: int, batch: int
) -> None:
    merged = open_merged(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "FILE_BYTES", file_bytes)
        patch.setattr("embedkit.analysis.texts.batches.BATCH_ROWS", batch)
        pieces = list(text_files._pieces(merged.at(np.array(sorted(ids), np.int64))))
    assert [row for rows, _ in pieces for row in rows] == sorted(ids)
    assert [text for _, frame in pieces for text in frame["prompt"]] == [ROWS[row].prompt for row in sorted(ids)]


def test_without_room_the_first_rows_and_a_sample_are_there(run: RunFolder) -> None:
    """All if they fit. If not, every source has its share."""
    merged = open_merged(run)
    everything = packed_bytes(merged)
    assert rows_that_fit(merged, everything, []).tolist() == list(range(len(ROWS)))
    half = rows_that_fit(merged, everything // 2, [30, 2, 1])
    assert {30, 2, 1} < set(half.tolist())
    assert half.tolist() == sorted(set(half.tolist()))
    assert everything / 4 <= packed_bytes(merged.at(half)) <= everything * 0.6
    assert set(merged.rows["source"].to_numpy()[half]) == {0, 1, 2, 3}
    assert rows_that_fit(merged, 1, [7]).tolist() == [7]
    assert half.tolist() == rows_that_fit(merged, everything // 2, [1, 2, 30]).tolist()


def test_an_analysis_removes_files_of_the_one_before(run: RunFolder, tmp_path: Path) -> None:
    """Only those of text files: what a person put there stays."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("00000.html", "00001.html", "00002.html", "notes.html", ".00000.html.tmp"):
        (folder / name).write_text("old")
    assert write_text_files(open_merged(run), folder) == [0]
    assert sorted(path.name for path in folder.iterdir()) == ["00000.html", "notes.html"]
    assert (folder / "00000.html").read_text() != "old"
    remove_text_files(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.html"]
    (folder / "notes.html").unlink()
    remove_text_files(folder)
    assert not folder.exists()
    remove_text_files(folder)


@pytest.mark.parametrize("texts", ["all", "none"])
def test_analyze_writes_them_or_none_or_those_of_sources(tmp_path: Path, texts: str) -> None:
    """The texts of a run without texts in its tables come from extracted_data.parquet."""
    run = chosen_run(tmp_path, ROWS[:6], texts=texts)
    analyze(run, NO_MAP)
    files = run.analysis / "texts"
    assert texts_in(files / "00000.html") == expected(list(range(6)))
    before = (files / "00000.html").read_bytes()
    analyze(run, replace(NO_MAP, sources=("s1",)))
    assert texts_in(run.analysis / "only-s1" / "texts" / "00000.html") == expected([1, 4])
    assert (files / "00000.html").read_bytes() == before
    analyze(run, replace(NO_MAP, text_files=0.0))
    assert not files.exists()


def test_a_view_of_the_user_has_its_text(tmp_path: Path) -> None:
    run = chosen_run(
        tmp_path, ROWS[:2], views=("combined", "both"), templates={"both": "{user_prompt} | {response_text}"}
    )
    write_text_files(open_merged(run), tmp_path / "texts")
    assert texts_in(tmp_path / "texts" / "00000.html")[1]["view both"] == f"{ROWS[1].prompt} | answer 1"


@no_browser
@pytest.mark.slow
def test_from_disk_a_row_has_its_whole_texts(chromium: Any, run: RunFolder) -> None:
    """`opened` fails if a message appears in the console, as for what the policy forbids."""
    with opened(chromium, run.analysis_page, f"#row={len(ROWS) - 1}", viewport={"width": 1300, "height": 900}) as tab:
        tab.wait_for_selector(READY, timeout=30_000)
        until(tab, f"document.querySelector('#row pre:last-of-type').textContent.length === {len(LONG)}")
        shown = tab.evaluate("[...document.querySelectorAll('#row pre')].map((each) => each.textContent)")
        assert shown == ["a long one", LONG]
        assert tab.locator("#row b:text('end')").count() == 0
        assert "cut here" not in tab.inner_text("#row")
        assert tab.locator("#row .command").count() == 0
        tab.evaluate("modules.main.session.update({ row: 3 })")
        until(tab, "document.querySelectorAll('#row pre').length === 3")
        assert tab.evaluate("document.querySelector('#row pre').textContent") == ROWS[3].prompt


@no_browser
@pytest.mark.slow
def test_without_the_files_the_page_says_what_to_type(chromium: Any, run: RunFolder, tmp_path: Path) -> None:
    """A page that was sent alone."""
    page = tmp_path / "sent.html"
    page.write_bytes(run.analysis_page.read_bytes())
    with opened(chromium, page, f"#row={len(ROWS) - 1}", viewport={"width": 1300, "height": 900}) as tab:
        tab.wait_for_selector(READY, timeout=30_000)
        until(tab, "document.querySelector('#row').innerText.includes('texts/00000.html')")
        said = tab.inner_text("#row")
        assert "texts/00000.html, in the folder of this page, cannot be opened." in said
        assert f"response, {len(LONG):,} characters, cut here" in said
        assert tab.inner_text("#row .command") == f"embedkit neighbors run --id {len(ROWS) - 1} --full-texts"


@no_browser
@pytest.mark.slow
def test_a_row_without_a_file_has_the_command(chromium: Any, tmp_path: Path) -> None:
    """There was no room for it."""
    run = chosen_run(tmp_path, ROWS, max_length=16_384)
    analyze(run, replace(NO_MAP, text_files=1e-9))
    with opened(chromium, run.analysis_page, "#row=30", viewport={"width": 1300, "height": 900}) as tab:
        tab.wait_for_selector(READY, timeout=30_000)
        tab.wait_for_selector("#row .command")
        missing = tab.evaluate("modules.text_files.textsFromFile(30, new AbortController().signal)")
        first = tab.evaluate("modules.data.META.text_files")
        files = [row for path in sorted((run.analysis / "texts").iterdir()) for row in texts_in(path)]
        assert first == files[:1]
        assert (missing is None) == (30 not in files)


@no_browser
@pytest.mark.slow
@pytest.mark.parametrize("is_own", [True, False])
def test_no_page_of_another_site_reads_them(chromium: Any, run: RunFolder, tmp_path: Path, is_own: bool) -> None:
    """On a web server, only a page of the same one gets texts."""
    copytree(run.analysis / "texts", tmp_path / "own" / "texts")
    (tmp_path / "other").mkdir()
    with _serving(tmp_path / "own") as own, _serving(tmp_path / "other") as other:
        asking = f"""<iframe src="{own}/texts/00000.html"></iframe><script>
          addEventListener("message", ({{ data }}) => {{
            if (data === "ready") frames[0].postMessage(3, "*"); else document.title = data.texts.prompt;
          }});
          setTimeout(() => {{ if (!document.title) document.title = "nothing"; }}, 3000);</script>"""
        for folder in ("own", "other"):
            (tmp_path / folder / "asking.html").write_text(asking)
        with opened_at(chromium, "http://", (own if is_own else other).removeprefix("http://") + "/asking.html") as tab:
            until(tab, "document.title !== ''")
            assert tab.title() == (ROWS[3].prompt if is_own else "nothing")


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """A web server on a folder; its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
@pytest.mark.skipif(bool(firefox.missing()), reason="there is no Firefox; `make browser` installs it")
def test_firefox_shows_whole_texts_from_disk(run: RunFolder, tmp_path: Path) -> None:
    with firefox.opened(run.analysis_page, tmp_path) as tab:
        tab.until("document.querySelector('#stage[data-ready]') !== null")
        tab.evaluate(f"(location.hash = 'row={len(ROWS) - 1}')")
        tab.until(f"document.querySelector('#row pre:last-of-type')?.textContent.length === {len(LONG)}")
        assert tab.evaluate("document.querySelector('#row pre:last-of-type').textContent") == LONG
