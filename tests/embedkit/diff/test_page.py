"""The page of diff: what it says, that texts of rows stay texts, and how it fits screens of both themes."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from embedkit.diff.page import bar, page, require_folder, write_page
from embedkit.diff.schema import Difference
from embedkit.diff.two_runs import diff_runs
from embedkit.documents import Success, open_matrix, read
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support import browser
from tests.support.planted import plant, shifted

NASTY = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\x01{{ 7*7 }}"


@pytest.fixture
def difference(small_run: RunFolder, tmp_path: Path) -> Difference:
    """Two runs whose vectors differ by 1e-4, and one by much more."""
    shutil.copytree(small_run.path, tmp_path / "other")
    other = RunFolder(tmp_path / "other")
    success = read(small_run.success, Success)
    vectors = np.array(open_matrix(small_run.view_matrix("combined"), success.rows, success.dim))
    planted = shifted(vectors, 1e-4)
    planted[3] = shifted(vectors[[3]], 0.4)[0]
    plant(other, planted)
    return diff_runs(small_run, other)


def test_bars_are_logarithmic() -> None:
    assert [bar(value) for value in (None, 0.0, 1e-9, 1e-8, 1e-4, 1.0, 2.0)] == [0, 0, 0, 0, 50, 100, 100]


def test_page_has_all_numbers_of_the_result(difference: Difference) -> None:
    html = page(difference)
    assert "NOT within the tolerance: run and other" in html
    assert html.count('<td class="bad">does not pass</td>') == 2  # mean and largest of one view; lengths are equal
    assert "0.4" in html
    for view in difference.views:
        assert f"View {view.view}" in html
        for group in (*view.deciles, *view.sources):
            assert f"<td>{group.name}</td>" in html


def test_texts_of_rows_stay_texts(tmp_path: Path, tokenizer_only: Path) -> None:
    runs = []
    for name in ("a", "b"):
        data = write_chats(tmp_path / "data.parquet", [chat(NASTY, f"answer {i}") for i in range(4)], [NASTY] * 4)
        embedkit("run", *hash_request(data, tokenizer_only, tmp_path, name), "--shards", 1)
        runs.append(RunFolder(tmp_path / name))
    plant(runs[1], shifted(np.eye(64, dtype=np.float32)[:4], 0.3))
    html = page(diff_runs(*runs))
    assert "<script" not in html.replace("&lt;script", "")
    assert "<img" not in html
    assert "\x01" not in html
    assert "{{ 7*7 }}" in html


def test_page_needs_a_folder(tmp_path: Path) -> None:
    require_folder(tmp_path / "page.html")
    with pytest.raises(UsageError, match=r"--html .*: there is no folder"):
        require_folder(tmp_path / "nowhere" / "page.html")


@pytest.mark.slow
@pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it")
def test_page_fits_every_screen_in_both_themes(difference: Difference, tmp_path: Path) -> None:
    """Nothing but the tables scrolls sideways, and the text has a contrast of 4.5 or more to its paper."""
    path = tmp_path / "page.html"
    write_page(difference, path)
    with browser.chromium() as chromium:
        for width in (360, 800, 1400):
            for theme in ("light", "dark"):
                size = {"width": width, "height": 900}
                with browser.opened(chromium, path, viewport=size, color_scheme=theme) as tab:
                    assert tab.evaluate("document.documentElement.scrollWidth") <= width
                    paper, ink = tab.evaluate(
                        "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }"
                    )
                    assert (paper == "rgb(255, 255, 255)") is (theme == "light")
                    assert contrast(paper, ink) > 4.5
                    bad = tab.evaluate("getComputedStyle(document.querySelector('.bad')).color")
                    assert contrast(paper, bad) > 4.5
                    tab.screenshot(path=tmp_path / f"{width}-{theme}.png", full_page=True)


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, `rgb(r, g, b)`, by WCAG 2.2."""
    lights = []
    for colour in (one, other):
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)
