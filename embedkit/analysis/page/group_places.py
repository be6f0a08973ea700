"""Where the name of a group stands on a map: in the densest part of its points."""

import numpy as np
import numpy.typing as npt

from embedkit.analysis.optional_import import optional_import

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

CELLS = 24
"""Cells per side of the square that has the middle 90 % of a group's points."""
SMOOTHING = 2.0
"""Standard deviation of the smoothing, in cells."""
FEW = 10
"""Fewer points have no densest part: their median is taken."""
MOST = 20_000
"""Points of a group that are looked at, evenly spread over its rows."""


def densest_places(xy: Floats, labels: Labels, count: int) -> Floats:
    """The middle of the densest part of each of `count` groups, float64 (count, 2); NaN for groups without points.

    Args:
        xy: places of rows, float64 (n, 2).
        labels: the group of each row, int32 (n,); -1 for none.
        count: groups.
    """
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(count + 1))
    places = np.full((count, 2), np.nan)
    for group in range(count):
        rows = order[bounds[group] : bounds[group + 1]]
        if len(rows):
            places[group] = _densest(xy[rows[:: -(-len(rows) // MOST)]])
    return places


def _densest(points: Floats) -> Floats:
    """The middle of the fullest cell of a smoothed histogram, float64 (2,)."""
    median = np.median(points, axis=0)
    low, high = np.quantile(points, (0.05, 0.95), axis=0)
    side = float(np.max(high - low))
    if len(points) < FEW or not side > 0:
        return np.asarray(median)
    start = (low + high) / 2 - side / 2
    ends = [(float(first), float(first) + side) for first in start]
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], CELLS, ends)
    smooth = optional_import("scipy.ndimage").gaussian_filter(counts, SMOOTHING, mode="constant")
    cell = np.array(np.unravel_index(int(np.argmax(smooth)), smooth.shape))
    return np.asarray(start + (cell + 0.5) * (side / CELLS))
