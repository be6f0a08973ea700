"""Colours of sources: how far apart they look, and how readable they are, by formulas written here."""

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.components.pca import pca, project
from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.page.colours import PALETTE, shared_prefixes, source_colours
from embedkit.analysis.page.layer import choose_layer
from embedkit.analysis.page.pack import pack
from tests.support.merged_runs import merged_of

Floats = npt.NDArray[np.float64]
SIGHTS = {
    "normal": np.eye(3),
    # Machado et al. 2009, severity 1, for linear RGB.
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(axis=1)
NAMES = st.text("abc-_/.é ", min_size=1, max_size=8)


def linear(colours: Floats) -> Floats:
    """Linear RGB of colours from 0 to 255 (IEC 61966-2-1)."""
    parts = colours / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(colours: Floats, sight: str) -> Floats:
    """CIELAB of colours as a kind of sight sees them."""
    seen = np.clip(linear(colours) @ SIGHTS[sight].T, 0, 1)
    ratio = seen @ TO_XYZ.T / WHITE
    root = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], axis=1)


def contrasts(colours: Floats, background: Floats) -> Floats:
    """WCAG 2.2 contrast of each colour."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    ours, paper = linear(colours) @ weights + 0.05, linear(background) @ weights + 0.05
    return np.maximum(ours, paper) / np.minimum(ours, paper)


def backgrounds() -> list[Floats]:
    """The map's backgrounds on the light and the dark theme, from the page's own style."""
    shell = (files("embedkit.page_shell") / "base.html.jinja").read_text(encoding="utf-8")
    found = re.findall(r"--paper: #([0-9a-f]{6})", shell)
    assert len(found) == 2
    return [np.array(list(bytes.fromhex(colour)), float) for colour in found]


def many() -> dict[str, int]:
    """A run of 445 sources: 60 families of 5 sources, and others without a family."""
    return {f"family{i % 60}-{i}" if i < 300 else f"alone{i}": 10_000 - 7 * i for i in range(445)}


@pytest.mark.parametrize("sight", SIGHTS)
def test_the_largest_sources_look_different(sight: str) -> None:
    found = source_colours({f"source {i}": 100 - i for i in range(len(PALETTE))})
    seen = lab(np.array(list(found.values()), float), sight)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 1000 * np.eye(len(seen))
    assert len(seen) == 20
    assert apart.min() > 8.9
    assert apart[:8, :8].min() > 12


def test_every_colour_is_readable_on_both_themes() -> None:
    colours = np.array(list(source_colours(many()).values()), float)
    for background in backgrounds():
        assert contrasts(colours, background).min() >= 3


def test_sources_of_a_family_share_a_hue() -> None:
    rows = {f"big{i}": 1000 - i for i in range(20)} | {"logic-train": 9, "logic-test": 8, "logic.dev": 7, "other": 6}
    found = source_colours(rows)
    family = linear(np.array([found[name] for name in ("logic-train", "logic-test", "logic.dev")], float))
    # Mixing with grey keeps the order of, and the ratio between, differences of the parts.
    ratio = [(b - a) / (c - a) for a, b, c in np.sort(family, axis=1)]
    assert np.ptp(ratio) < 0.03
    assert (np.argsort(family, axis=1) == np.argsort(family[0])).all()
    assert len({found[name] for name in ("logic-train", "logic-test", "logic.dev")}) == 3


def test_a_small_source_has_the_hue_of_its_large_relative() -> None:
    rows = {f"s{i}": 1000 - i for i in range(19)} | {"qa/train": 2000, "qa/test": 1}
    found = source_colours(rows)
    order = [np.argsort(found[name]).tolist() for name in ("qa/train", "qa/test")]
    assert order[0] == order[1]
    assert found["qa/train"] != found["qa/test"]


@given(st.dictionaries(NAMES, st.integers(0, 50), max_size=60))
def test_colours_do_not_depend_on_the_order(rows: dict[str, int]) -> None:
    found = source_colours(rows)
    assert found == source_colours(dict(reversed(list(rows.items()))))
    assert found.keys() == rows.keys()
    colours = np.array(list(found.values()), float).reshape(-1, 3)
    assert all(contrasts(colours, background).min(initial=3) >= 3 for background in backgrounds())


def test_a_page_of_some_sources_keeps_their_colours(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    merged = merged_of(tmp_path, vectors, [f"s{i % 3}{'x' if i > 40 else ''}" for i in range(60)])
    whole = colours_on_page(merged)
    some = colours_on_page(open_merged(merged.run, sources=["s2"]))
    assert list(some) == ["s2", "s2x"]
    assert some == {name: whole[name] for name in some}


def colours_on_page(merged: Merged) -> dict[str, list[int]]:
    found = pca(merged, 2)
    (layer,) = pack([choose_layer(merged, found, project(merged, found), None)]).layers
    return dict(zip(layer["sources"], map(list, layer["colours"]), strict=True))


def test_prefixes_are_those_that_sources_share() -> None:
    names = ["a/x", "a_y", "a", "b.c", "b-d", "c", "d-e", "-odd"]
    found = shared_prefixes(names)
    assert found == {"a/x": "a", "a_y": "a", "a": "a", "b.c": "b", "b-d": "b", "c": "", "d-e": "", "-odd": ""}
    assert shared_prefixes(["a-1", "a-2"]) == {"a-1": "", "a-2": ""}
    assert shared_prefixes([]) == {}
