"""Lines of equal density of the rows on the map.

The lines are borders of highest density regions: the smallest parts of the map that have a share of the rows.

Sources: Hyndman, Computing and graphing highest density regions, The American Statistician 50 (1996); the bandwidth is
a part of that of Scott, Multivariate Density Estimation (1992); contourpy; scipy.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedkit.analysis.optional_import import optional_import

Floats = npt.NDArray[np.float64]

CELLS = 256
"""Cells per side of the histogram, over the map and a margin."""
MARGIN = 0.06
"""Around the map on each side, as a share of its side, so that lines around points at its edge are closed."""
SHARES = (0.9, 0.6, 0.3)
"""Shares of the rows inside the lines, one per level."""
BANDWIDTH = 0.3
"""Share of Scott's bandwidth, which is meant for one hill; a map has many."""
LEAST_CELLS = 1.5
"""Smallest bandwidth, in cells."""
LEAST_ROWS = 100
"""Fewer rows have no lines."""
LEAST_LENGTH = 22.0
"""Shortest line, in bandwidths. The lines around a single place are shorter; they would say nothing that its points do
not."""
MAX_POINTS = 30_000
"""Points of all lines, four bytes each; the longest lines are kept."""
STEPS = 2**16 - 1
"""The largest quantized coordinate."""


def density_lines(xy: Floats) -> list[tuple[int, Floats]]:
    """Lines of equal density as level and points, float64 (m, 2); the longest first, at most MAX_POINTS points.

    The level is a position in SHARES.

    Args:
        xy: places of rows, from 0 to 1, float64 (n, 2).
    """
    if len(xy) < LEAST_ROWS:
        return []
    cell = (1 + 2 * MARGIN) / CELLS
    ends = (-MARGIN, 1 + MARGIN)
    counts, _, _ = np.histogram2d(xy[:, 1], xy[:, 0], CELLS, (ends, ends))
    bandwidth = max(BANDWIDTH * len(xy) ** (-1 / 6) * float(np.mean(np.std(xy, axis=0))) / cell, LEAST_CELLS)
    density = optional_import("scipy.ndimage").gaussian_filter(counts, bandwidth, mode="constant")
    generator = optional_import("contourpy").contour_generator(z=density, name="serial")
    found = [
        (level, line)
        for level, threshold in enumerate(_thresholds(density))
        for line in generator.lines(threshold)
        if _length(line) >= LEAST_LENGTH * bandwidth
    ]
    found.sort(key=lambda one: (-len(one[1]), one[0], one[1][0].tolist()))
    within = np.cumsum([len(line) for _, line in found]) <= MAX_POINTS
    return [(level, (line + 0.5) * cell - MARGIN) for (level, line), kept in zip(found, within, strict=True) if kept]


def pack_lines(lines: Sequence[tuple[int, Floats]]) -> npt.NDArray[np.uint16]:
    """Lines for the page, uint16: for each its level, its number of points, and their x and y.

    Coordinates from -MARGIN to 1 + MARGIN are numbers from 0 to STEPS.
    """
    parts = [np.zeros(0, np.uint16)]
    for level, points in lines:
        unit = (points + MARGIN) / (1 + 2 * MARGIN)
        parts.append(np.array([level, len(points)], np.uint16))
        parts.append(np.clip(np.rint(unit * STEPS), 0, STEPS).astype(np.uint16).ravel())
    return np.concatenate(parts)


def _thresholds(density: Floats) -> list[float]:
    """By share, the density above which so many of the rows are."""
    falling = np.sort(density, axis=None)[::-1]
    inside = np.cumsum(falling)
    at = np.searchsorted(inside, np.array(SHARES) * inside[-1])
    return [float(falling[min(position, len(falling) - 1)]) for position in at]


def _length(line: Floats) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())
