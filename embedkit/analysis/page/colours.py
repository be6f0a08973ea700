"""Colours of sources: the same on every page of a run, and readable on the light and the dark background.

The largest sources have the colours of PALETTE. A smaller source whose name begins as that of others has a shade of
their hue, so that hundreds of sources are seen by group. The remaining ones repeat the palette's hues in shades.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged

PALETTE = (
    *("#ff6010", "#8808ff", "#a07888", "#c84040", "#386890", "#5098c0", "#4090ff", "#e87060", "#c80060", "#c00088"),
    *("#287868", "#2080c8", "#28a0a0", "#ff50a0", "#f02870", "#00a810", "#007830", "#3860b8", "#a84800", "#ff20ff"),
)
"""Colours of the largest sources, the most different ones first.

Each has a contrast of 3:1 (WCAG 2.2) with both backgrounds, which leaves little room for lightness. Within that, they
are as far apart as a search found: farthest points and exchanges over a grid of sRGB (Glasbey et al. 2007), in the
least of the distances CIE76 and CAM02-UCS under normal sight, deuteranopia and protanopia (Machado et al. 2009,
severity 1, by colorspacious 1.1.2). The least distance is 9.0 among all 20, 9.7 among the first 12, 12.5 among the
first 8. With 24 colours it would be 8.0.
"""
GREY = "#b5bac0"
"""Of all smaller sources together, in a figure with room for few colours."""
LUMINANCES = (0.16, 0.27, 0.21, 0.135)
"""WCAG luminance of consecutive shades. From 0.126 to 0.300 has a contrast of 3:1 on both backgrounds."""
SATURATIONS = (1.0, 0.6)
"""Of consecutive shades, once all luminances are used."""
LUMINANCE_WEIGHTS = np.array([0.2126, 0.7152, 0.0722])
FIRST_PART = re.compile(r"(?P<prefix>[^/_.:\-]+)[/_.:\-]")

Rgb = tuple[int, int, int]


def source_colours(rows: Mapping[str, int]) -> dict[str, Rgb]:
    """Red, green and blue, 0 to 255, of each source of a run.

    Args:
        rows: number of rows by source, of the whole run, so that pages of some of its sources have the same colours.
    """
    largest_first = sorted(rows, key=lambda name: (-rows[name], name))
    first = dict(zip(largest_first, PALETTE, strict=False))
    prefixes = shared_prefixes(largest_first)
    hues: dict[str, str] = {}
    for name, colour in first.items():
        hues.setdefault(prefixes[name], colour)
    hues.pop("", None)
    number_in_family: dict[str, count[int]] = {}
    next_hue, found = count(), {name: _rgb(colour) for name, colour in first.items()}
    for name in largest_first[len(first) :]:
        family = prefixes[name]
        if family:
            hue = hues.get(family) or hues.setdefault(family, PALETTE[next(next_hue) % len(PALETTE)])
            found[name] = shade(hue, next(number_in_family.setdefault(family, count())))
        else:
            at = next(next_hue)
            found[name] = shade(PALETTE[at % len(PALETTE)], at // len(PALETTE))
    return found


def run_colours(merged: Merged) -> dict[str, Rgb]:
    """The colour of each source of a run, whatever sources `merged` was opened with."""
    return source_colours({name: record.rows for name, record in merged.success.sources.items()})


def shared_prefixes(names: Iterable[str]) -> dict[str, str]:
    """The prefix that each source shares with others: its name up to the first of `/ _ . : -`, or "" if it shares none.

    If all sources share one, it separates nothing, and all have "".
    """
    found = {name: match["prefix"] if (match := FIRST_PART.match(name)) else name for name in names}
    times = Counter(found.values())
    if len(times) < 2:
        return dict.fromkeys(found, "")
    return {name: prefix if times[prefix] > 1 else "" for name, prefix in found.items()}


def shade(colour: str, number: int) -> Rgb:
    """A shade of a colour "#rrggbb": another luminance and saturation, the same hue. The shades repeat after eight."""
    luminance = LUMINANCES[number % len(LUMINANCES)]
    saturation = SATURATIONS[number // len(LUMINANCES) % len(SATURATIONS)]
    linear = _linear(np.array(_rgb(colour)) / 255)
    scaled = linear * luminance / (linear @ LUMINANCE_WEIGHTS)
    # Mixing with grey of the same luminance keeps the luminance. No part may be above 1.
    saturation = min(saturation, (1 - luminance) / max(scaled.max() - luminance, 1e-9))
    encoded = _encoded(luminance + saturation * (scaled - luminance))
    red, green, blue = (round(255 * part) for part in encoded.tolist())
    return red, green, blue


def css(colour: Rgb) -> str:
    """A colour as "#rrggbb"."""
    return f"#{bytes(colour).hex()}"


def _rgb(colour: str) -> Rgb:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _linear(encoded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The transfer function of sRGB (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _encoded(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
