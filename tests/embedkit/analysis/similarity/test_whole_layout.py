"""Rows that join a layout, compared with loops over their neighbours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.similarity.whole_layout import descend, start_among_neighbors, with_self


def naive_start(xy: dict[int, np.ndarray], neighbors: np.ndarray) -> dict[int, np.ndarray]:
    """Round by round, the mean of the neighbours that had a point before the round; twice if two name each other."""
    while True:
        new = {}
        for i in set(range(len(neighbors))) - set(xy):
            of_row = [j for j in neighbors[i] if j >= 0]
            of_row += [j for j in range(len(neighbors)) if i in neighbors[j]]
            points = [xy[j] for j in of_row if j in xy]
            if points:
                new[i] = np.mean(points, axis=0)
        if not new:
            return xy
        xy = xy | new


# The number of neighbours that both rows name counts twice in the code, as in the loops.
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_start_at_the_mean_of_their_neighbours(data: st.DataObject) -> None:
    rows = data.draw(st.integers(2, 14))
    lists = [
        data.draw(st.lists(st.integers(0, rows - 1).filter(lambda j, i=i: j != i), max_size=3, unique=True))
        for i in range(rows)
    ]
    neighbors = np.array([one + [-1] * (3 - len(one)) for one in lists], np.int32)
    is_fitted = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    fitted_xy = np.random.default_rng(rows).normal(size=(is_fitted.sum(), 2)).astype(np.float32)
    found = start_among_neighbors(fitted_xy, is_fitted, neighbors)
    expected = naive_start(dict(zip(np.flatnonzero(is_fitted).tolist(), fitted_xy, strict=True)), neighbors)
    assert found.dtype == np.float32
    for i in range(rows):
        assert np.allclose(found[i], expected[i], atol=1e-5) if i in expected else np.isnan(found[i]).all()


def test_umap_gets_the_row_itself_and_no_missing_distance() -> None:
    neighbors = np.array([[1, 2], [0, -1], [-1, -1]], np.int32)
    cosines = np.array([[0.75, 0.5], [1.0000001, np.nan], [np.nan, np.nan]], np.float32)
    indices, distances = with_self(neighbors, cosines)
    assert indices.tolist() == [[0, 1, 2], [1, 0, -1], [2, -1, -1]]
    assert distances.tolist() == [[0, 0.25, 0.5], [0, 0, 0], [0, 0, 0]]
    assert (indices.dtype, distances.dtype) == (np.int32, np.float32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_rings_stay_apart_and_points_on_one_place_part() -> None:
    """Each row is joined to the two beside it on its ring of 20. All of a ring start on one place."""
    ring = np.arange(40) // 20 * 20
    neighbors = np.stack([ring + (np.arange(40) + step) % 20 for step in (1, -1)], axis=1).astype(np.int32)
    start = np.stack([ring / 2, ring / 2], axis=1).astype(np.float32)
    found = descend(start, neighbors, np.full((40, 2), 0.9, np.float32), 0.1, 3)
    assert (found == descend(start, neighbors, np.full((40, 2), 0.9, np.float32), 0.1, 3)).all()
    gaps = np.linalg.norm(found[:, None] - found[None], axis=2)
    assert gaps[~np.eye(40, dtype=bool)].min() > 0.001
    assert gaps[:20, 20:].min() > np.median(gaps[:20, :20])
