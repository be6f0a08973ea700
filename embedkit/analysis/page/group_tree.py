"""The groups of a view as the page's scripts need them: names, sizes and places by level."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.groups import GroupSummary, NamedGroups
from embedkit.analysis.page.group_places import densest_places

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

COLUMN = "group"
"""Name of the page's column with the fine group of each row."""
DIGITS = 5
"""Of a place on the map."""


def describe_groups(
    named: NamedGroups, fine: Labels, sources: tuple[str, ...], xy: Floats | None
) -> list[dict[str, Any]]:
    """Describe the levels for JSON, the coarsest first. A level that is equal to the next finer one is left out.

    Of each level: its name; by group its name, rows on the page, largest sources (code and share), and the id of the
    row nearest to its mean; the group that each fine group lies in; by group its place on the UMAP.

    Args:
        named: the groups of the view.
        fine: the fine group of each row of the page, int32 (n,); -1 for none.
        sources: of the view, by code.
        xy: places of these rows on the UMAP, from 0 to 1, float64 (n, 2); None without a UMAP.
    """
    parents = named.groups.parents
    sizes = {level: int(of_fine.max(initial=-1)) + 1 for level, of_fine in parents.items()}
    levels = list(parents)
    kept = [level for level, finer in pairwise(levels) if sizes[level] < sizes[finer]]
    codes = {name: code for code, name in enumerate(sources)}
    return [
        _describe(level, named.summaries[level], parents[level], fine, codes, xy)
        for level in [*kept, *levels[-1:]]
        if sizes[level]
    ]


def _describe(
    level: str,
    summaries: tuple[GroupSummary, ...],
    of_fine: Labels,
    fine: Labels,
    codes: dict[str, int],
    xy: Floats | None,
) -> dict[str, Any]:
    labels = np.append(of_fine, np.int32(-1))[fine]
    count = len(summaries)
    places = None if xy is None else np.round(densest_places(xy, labels, count), DIGITS)
    return {
        "level": level,
        "names": [one.name for one in summaries],
        "rows": np.bincount(labels[labels >= 0], minlength=count).tolist(),
        "sources": [[[codes[name], share] for name, share in one.sources if name in codes] for one in summaries],
        "examples": [one.examples[0] if one.examples else None for one in summaries],
        "ofFine": of_fine.tolist(),
        "places": None if places is None else [None if np.isnan(place).any() else place.tolist() for place in places],
    }
