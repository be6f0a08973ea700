"""The report's page: well-formed, with everything escaped, the same in a real browser of any width."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from jobs.report.compute import Report, make_report
from jobs.report.page import page, timeline, write_page
from tests.support import browser
from tests.support.histories import evidence_of, inputs, manifest, record, start, submission

NASTY = "<b>a&b\"c'</b></title></svg><script>alert(1)</script>\x00\x1b[31m ]]> {{ 7*7 }} é 漢 \ud83d"
XHTML = "{http://www.w3.org/1999/xhtml}"


def history(shards: int, starts: int = 3, why: str = "boom") -> Report:
    """Every shard failed, but for its last start, which is 100 s long like the others."""
    embed = submission("embed", "7", array=f"0-{shards - 1}", gpus=1)
    lanes, records = {}, []
    for shard in range(shards):
        lanes[shard] = []
        for n in range(starts):
            began, last = 20.0 + shard + 150 * n, n == starts - 1
            lanes[shard].append(
                start(f"7_{shard}", began, began + 100, "finished" if last else "failed", n, "" if last else why)
            )
            records.append(record("7", shard, began - 1, began + 101, "COMPLETED", began - 15, gpus=1))
    manifests = {shard: manifest(shard, f"7_{shard}-{starts - 1}-ab", 10.0) for shard in range(shards)}
    return make_report(inputs(evidence_of(lanes, [embed], records), shards, manifests, merged=True))


class Reader(HTMLParser):
    """The tags of a page with their attributes, and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def bars(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [g for g in root.iter(f"{XHTML}g") if g.get("class", "").startswith("bar ")]


@pytest.mark.parametrize(("shards", "starts"), [(1, 1), (6, 3), (30, 2), (300, 1)])
def test_the_page_is_well_formed_and_has_a_bar_a_start(shards: int, starts: int) -> None:
    root = ElementTree.fromstring(page(history(shards, starts)))
    assert len(bars(root)) == shards * starts
    for bar in bars(root):
        title, queued, ran = bar
        assert "job 7_" in (title.text or "")
        assert "on n1" in (title.text or "")
        for rect in (queued, ran):
            x, width = (float(rect.get(name, "").removesuffix("%")) for name in ("x", "width"))
            assert x >= 0
            assert width > 0
            assert x + width <= 100.01
        assert float(queued.get("x", "")[:-1]) < float(ran.get("x", "")[:-1])


def test_a_bar_is_as_long_as_its_start_and_coloured_by_its_end() -> None:
    drawn = timeline(history(1, 2))
    assert drawn is not None
    first, second = drawn.lanes[0].bars
    assert (first.outcome, second.outcome) == ("failed", "finished")
    span = 100 / first.width * 102  # it lasted 102 s, of which the axis shows so much
    assert second.x - first.x == pytest.approx(100 * 150 / span, abs=0.01)
    assert first.queue_width == pytest.approx(100 * 14 / span, abs=0.01)
    assert drawn.outcomes == ("finished", "failed")


def test_the_axis_has_time_since_submit_and_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        drawn = timeline(history(1, 40))
        assert drawn is not None
        assert [tick.since for tick in drawn.ticks] == ["0 h", "0.25 h", "0.5 h", "0.75 h", "1 h", "1.25 h", "1.5 h"]
        assert [tick.local for tick in drawn.ticks][:2] == ["13:30", "13:45"]  # T0 is 08:00 UTC
        assert drawn.zone == "IST (UTC+0530)"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_names_and_reasons_are_text_whatever_is_in_them() -> None:
    import msgspec

    plain = history(2, 2)
    nasty = msgspec.structs.replace(history(2, 2, why=NASTY), name=NASTY, run=NASTY, notes=(NASTY,))
    html = page(nasty).encode(errors="replace").decode()
    reader, before = parsed(html), parsed(page(plain))
    assert [tag for tag, _ in reader.tags if tag != "p"] == [tag for tag, _ in before.tags if tag != "p"]
    assert "script" not in [tag for tag, _ in reader.tags]
    root = ElementTree.fromstring(html)
    assert (root.findtext(f"{XHTML}body/{XHTML}h1") or "").startswith(
        "<b>a&b\"c'</b></title></svg><script>alert(1)</script>"
    )
    assert "{{ 7*7 }}" in reader.text


def test_the_page_needs_nothing_else() -> None:
    html = page(history(30, 2))
    fetching = {"src", "href", "xlink:href", "srcset", "data", "action", "background", "poster"}
    for tag, attributes in parsed(html).tags:
        assert not fetching & set(attributes), tag
        assert tag not in ("script", "link", "iframe", "object", "embed", "img", "base")
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_a_page_is_written_whole_and_a_run_without_starts_has_one_too(tmp_path: Path) -> None:
    write_page(make_report(inputs(evidence_of({}))), tmp_path / "r.html")
    root = ElementTree.fromstring((tmp_path / "r.html").read_bytes())
    assert not bars(root)
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


PROBE = """<script>
addEventListener("load", () => {
  const seen = [...document.querySelectorAll("g.bar")].filter(bar => {
    const box = bar.querySelector(".run").getBoundingClientRect();
    return box.width >= 0.3 && box.height >= 1 && bar.querySelector("title").textContent.includes("job ");
  });
  const ticks = [...document.querySelectorAll(".axis g")].map(g => g.getBoundingClientRect()).filter(box => box.width);
  parent.postMessage(JSON.stringify({
    inner: innerWidth,
    scroll: document.documentElement.scrollWidth,
    bars: seen.length,
    fetched: performance.getEntriesByType("resource").map(entry => entry.name),
    overlaps: ticks.filter((box, at) => at && box.left < ticks[at - 1].right).length,
    page: getComputedStyle(document.body).backgroundColor,
    finished: getComputedStyle(document.querySelector(".finished .run")).fill,
  }), "*");
});
</script>"""


def measure(html: str, folder: Path, width: int, *options: str) -> dict[str, Any]:
    """What a browser makes of the page in a frame so wide; a window of its own would not be narrower than 500 px.

    Its policy is taken out, so that the probe may run, and so that it hides nothing that would be fetched.
    """
    probed = re.sub(r"<meta http-equiv=.*?/>", "", html).replace("</body>", PROBE + "</body>")
    (folder / "probed.html").write_text(probed)
    wrapper = folder / "wrapper.html"
    wrapper.write_text(
        "<!DOCTYPE html><body><pre></pre><script>onmessage = e => document.querySelector('pre').textContent = e.data"
        f"</script><iframe src='probed.html' width='{width}' height='800' style='border: 0'></iframe></body>"
    )
    dom = browser.browse(wrapper, folder / "profile", "--virtual-time-budget=20000", *options, "--dump-dom", width=1500)
    said = re.search(r"<pre>(.+?)</pre>", dom)
    assert said is not None, dom
    return dict(json.loads(unescape(said[1])))


@pytest.mark.slow
@pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it")
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("shards", [6, 1000])
def test_in_a_browser_all_bars_show_and_fit(shards: int, width: int, tmp_path: Path) -> None:
    """All bars show, nothing is fetched, and nothing is wider than the window."""
    found = measure(page(history(shards, why="no progress for 600 s " + "x" * 400)), tmp_path, width)
    assert found["inner"] == width
    assert found["scroll"] <= width
    assert found["bars"] == 3 * shards
    assert found["fetched"] == []
    assert found["overlaps"] == 0


@pytest.mark.slow
@pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it")
def test_in_a_browser_the_page_is_light_or_dark_as_its_reader_likes(tmp_path: Path) -> None:
    html = page(history(6))
    light = measure(html, tmp_path, 1280, "--blink-settings=preferredColorScheme=1")
    dark = measure(html, tmp_path, 1280, "--blink-settings=preferredColorScheme=0")
    assert light["page"] == "rgb(251, 251, 250)"
    assert dark["page"] == "rgb(20, 23, 26)"
    assert light["finished"] != dark["finished"]
