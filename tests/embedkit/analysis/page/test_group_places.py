"""The place of a group's name, and the groups as the page gets them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.page.group_places import CELLS, FEW, SMOOTHING, densest_places
from embedkit.analysis.page.group_tree import describe_groups
from tests.support.made_page import made_groups


def test_a_name_is_in_the_fuller_of_two_clusters() -> None:
    """Neither the mean nor the median of a group in two parts is near any of its points."""
    rng = np.random.default_rng(0)
    few, many = rng.normal(0.2, 0.02, (400, 2)), rng.normal(0.8, 0.02, (600, 2))
    (place,) = densest_places(np.concatenate([few, many]), np.zeros(1000, np.int32), 1)
    assert place == pytest.approx([0.8, 0.8], abs=0.05)


def test_groups_without_rows_have_no_place_and_few_their_median() -> None:
    xy = np.array([[0.1, 0.2], [0.3, 0.4], [0.9, 0.9], [0.5, 0.5]])
    places = densest_places(xy, np.array([1, 1, 1, -1], np.int32), 3)
    assert np.isnan(places[[0, 2]]).all()
    assert places[1].tolist() == [0.3, 0.4]


@given(st.integers(0, 2**32 - 1), st.integers(FEW, 5 * FEW))
def test_a_place_is_near_a_point_of_its_group(seed: int, rows: int) -> None:
    """Smoothing reaches four standard deviations far, and half a cell is lost to rounding."""
    xy = np.random.default_rng(seed).uniform(size=(rows, 2))
    (place,) = densest_places(xy, np.zeros(rows, np.int32), 1)
    reach = (4 * SMOOTHING + 0.5) / CELLS * np.ptp(xy, axis=0).max()
    assert np.abs(xy - place).max(axis=1).min() <= reach + 1e-9


def test_levels_of_a_view_with_their_sizes_and_places() -> None:
    fine = np.array([0, 0, 1, 2, -1], np.int32)
    names = {"coarse": ["a", "b"], "middle": ["x", "y", "z"], "fine": ["p", "q", "r"]}
    parents = {"coarse": [0, 1, 0], "middle": [0, 1, 2], "fine": [0, 1, 2]}
    named = made_groups(fine, names, parents, "s")
    xy = np.array([[0.0, 0.0], [0.2, 0.2], [0.5, 0.5], [1.0, 1.0], [0.7, 0.7]])
    coarse, finest = describe_groups(named, fine, ("r", "s"), xy)
    assert (coarse["level"], finest["level"]) == ("coarse", "fine")  # the middle level is the fine one
    assert (coarse["names"], coarse["rows"], coarse["ofFine"]) == (["a", "b"], [3, 1], [0, 1, 0])
    assert coarse["places"] == [[0.2, 0.2], [0.5, 0.5]]
    assert coarse["sources"] == [[[1, 1.0]], [[1, 1.0]]]
    assert (finest["rows"], finest["examples"]) == ([2, 1, 1], [0, 2, 3])
    assert describe_groups(named, fine, ("s",), None)[0]["places"] is None


def test_a_view_of_one_group_has_one_level_and_no_group_none() -> None:
    levels = ("coarse", "middle", "fine")
    one = made_groups(np.zeros(3, np.int32), {key: ["all"] for key in levels}, {key: [0] for key in levels}, "s")
    assert [level["level"] for level in describe_groups(one, np.zeros(3, np.int32), ("s",), None)] == ["fine"]
    none = made_groups(np.full(3, -1, np.int32), {key: [] for key in levels}, {key: [] for key in levels}, "s")
    assert describe_groups(none, np.full(3, -1, np.int32), ("s",), None) == []
