"""Lines of equal density: the share of the rows that they enclose, and their bounds."""

import numpy as np
import pytest

from embedkit.analysis.page.contours import (
    LEAST_ROWS,
    MARGIN,
    MAX_POINTS,
    SHARES,
    STEPS,
    Floats,
    density_lines,
    pack_lines,
)
from embedkit.analysis.page.packed import packed


def hill(rows: int, seed: int = 0) -> Floats:
    """Places around the middle of the map, with a standard deviation of 0.1."""
    return np.clip(np.random.default_rng(seed).normal(0.5, 0.1, size=(rows, 2)), 0, 1)


def test_lines_around_one_hill_enclose_their_shares_of_the_rows() -> None:
    xy = hill(20_000)
    lines = density_lines(xy)
    largest = {level: next(points for at, points in lines if at == level) for level, _ in lines}
    for level, share in enumerate(SHARES):
        radius = np.hypot(*(largest[level] - 0.5).T)
        # Of a normal distribution, the circle of this radius has the share of the rows; smoothing widens it a little.
        assert radius.mean() == pytest.approx(0.1 * np.sqrt(-2 * np.log(1 - share)), rel=0.1)
        inside = np.hypot(*(xy - 0.5).T) < radius.mean()
        assert inside.mean() == pytest.approx(share, abs=0.06)


def test_lines_at_the_edge_of_the_map_are_closed() -> None:
    xy = np.clip(np.random.default_rng(0).normal((0, 1), 0.1, size=(5000, 2)), 0, 1)
    lines = density_lines(xy)
    assert lines
    for _, points in lines:
        assert points[0] == pytest.approx(points[-1])
        assert points.min() >= -MARGIN
        assert points.max() <= 1 + MARGIN


@pytest.mark.parametrize("rows", [0, 1, LEAST_ROWS - 1])
def test_few_rows_have_no_lines(rows: int) -> None:
    assert density_lines(hill(rows)) == []
    assert pack_lines([]).size == 0


def test_rows_at_one_place_have_no_lines() -> None:
    assert density_lines(np.full((500, 2), 0.5)) == []


def test_lines_of_a_speckled_map_stay_within_their_bounds() -> None:
    rng = np.random.default_rng(0)
    middles = rng.uniform(size=(3000, 2))
    xy = np.clip(middles[rng.integers(0, 3000, 300_000)] + rng.normal(0, 0.004, size=(300_000, 2)), 0, 1)
    lines = density_lines(xy)
    assert sum(len(points) for _, points in lines) <= MAX_POINTS
    assert len(packed(pack_lines(lines).tobytes())) < 200_000


def test_packed_lines_are_levels_counts_and_points() -> None:
    lines = [(1, np.array([[-MARGIN, 0.5], [1 + MARGIN, 0.5]])), (0, np.array([[0.5, -MARGIN]]))]
    half = round(STEPS / 2)
    found = pack_lines(lines).tolist()
    assert found[:4] == [1, 2, 0, pytest.approx(half, abs=1)]
    assert found[4:6] == [STEPS, pytest.approx(half, abs=1)]
    assert found[6:] == [0, 1, pytest.approx(half, abs=1), 0]
