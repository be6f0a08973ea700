"""The file with two maps: which maps, and what is in it."""

import gzip
import json
import re
from base64 import b64decode

import numpy as np
import pytest

from embedkit.analysis.page.two_maps import Half, halves_of_run, render_two_maps

HALVES = (Half("left one", "view=think"), Half("right one", "view=response"))
NASTY = "</title><script>window.hacked = 1</script>\ud800"


def decoded(page: str, side: str) -> list[int]:
    block = re.search(f'id="data-{side}">([^<]*)<', page)
    assert block
    differences = np.frombuffer(gzip.decompress(b64decode(block[1])), "<u4")
    return np.cumsum(differences, dtype=np.uint32).tolist()


@pytest.mark.parametrize(
    ("views", "has_umap", "links"),
    [
        (["think", "response", "combined"], True, ["view=think&intro=false", "view=response&intro=false"]),
        (["combined"], True, ["map=umap&intro=false", "map=pc&intro=false"]),
        (["combined"], False, ["intro=false", "x=3&y=4&intro=false"]),
    ],
)
def test_which_maps_are_shown(views: list[str], has_umap: bool, links: list[str]) -> None:
    """The first two views; of one view its UMAP beside the components, or four components."""
    halves = halves_of_run(views, has_umap)
    assert [half.link for half in halves] == links
    assert {half.page for half in halves} == {"index.html"}


def test_ids_come_back_in_any_order() -> None:
    ids = (np.array([0, 3, 4, 4_000_000_000]), np.array([9, 2, 4_294_967_295, 0]))
    page = render_two_maps("two runs", HALVES, ids)
    assert [decoded(page, side) for side in ("left", "right")] == [each.tolist() for each in ids]


def test_one_run_has_no_translation() -> None:
    page = render_two_maps("a run", HALVES)
    assert "data-left" not in re.sub("(?s)<script>.*", "", page)
    assert json.loads(page.split('id="meta">')[1].split("<")[0]) == {"types": {}}


def test_names_are_text() -> None:
    page = render_two_maps(NASTY, (Half(NASTY, "x=1&y=2", 'a"b.html'), HALVES[1]))
    assert "<script>window.hacked" not in page
    assert 'data-link="x=1&amp;y=2"' in page
    assert 'data-page="a&#34;b.html"' in page
    page.encode()


def test_the_policy_allows_frames_and_one_script() -> None:
    page = render_two_maps("a run", HALVES)
    policy = page.split('Content-Security-Policy" content="')[1].split('"')[0]
    assert re.fullmatch(
        r"default-src 'none'; frame-src 'self'; script-src 'sha256-[\w+/=]{44}'; style-src 'unsafe-inline'", policy
    )
