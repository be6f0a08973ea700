"""The page in Firefox, without a network: points are drawn, a click reads a row, a search finds rows."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from embedkit.run import RunFolder
from tests.conftest import embedkit
from tests.embedkit.analysis.page.test_page import ROWS, made
from tests.support import firefox

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(firefox.missing()), reason=f"not here: {', '.join(firefox.missing())}; `make browser` installs it"
    ),
]


@pytest.fixture(scope="module")
def run(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("firefox")
    run = made(folder / "chats.parquet", tokenizer_only, folder)
    embedkit("analyze", run.path, "--groups", 0)
    return run


def test_firefox_draws_reads_and_searches(run: RunFolder, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    with firefox.opened(run.analysis / "index.html", tmp_path) as tab:
        tab.until("document.querySelector('#stage[data-ready]') !== null")
        picture = np.asarray(image.open(BytesIO(tab.screenshot("#points"))).convert("RGB")).astype(int)
        coloured = np.argwhere(np.ptp(picture, axis=2) > 60)
        assert len(coloured) > 10 * ROWS  # pixels of points, on a ground of white or grey
        box = tab.evaluate("document.querySelector('#points').getBoundingClientRect().toJSON()")
        down, across = coloured[len(coloured) // 2]
        tab.click(box["x"] + across, box["y"] + down)
        tab.until("document.querySelector('#row h2')?.innerText.startsWith('Row with id ')")
        assert "prompt " in tab.evaluate("document.querySelector('#row').innerText")
        tab.type("#search", "river")
        tab.until("document.querySelector('#chosen').innerText.includes('20 ')")
        assert tab.evaluate("document.querySelectorAll('#rows button').length") == 20


def test_firefox_links_two_maps(run: RunFolder, tmp_path: Path) -> None:
    """Searched left, a row of the list is opened right, and closed left."""
    with firefox.opened(run.two_maps_page, tmp_path) as tab:
        for half in (0, 1):
            tab.frame(half)
            tab.until("document.querySelector('#stage[data-ready]') !== null")
        tab.frame(0)
        tab.type("#search", "river")
        tab.frame(1)
        tab.until("document.querySelectorAll('#rows button').length === 20")
        tab.evaluate("document.querySelector('#rows button').click()")
        tab.frame(0)
        tab.until("document.querySelector('#row h2')?.innerText === 'Row with id 0'")
        tab.evaluate("document.querySelector('#close').click()")
        tab.frame(1)
        tab.until("document.querySelector('#row').hidden")
