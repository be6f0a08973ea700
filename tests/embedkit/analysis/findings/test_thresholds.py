"""Each threshold just inside and just outside, with evidence made by hand."""

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.findings import Evidence, FindingOptions, find_findings
from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.all_neighbors import RowNeighbors
from embedkit.analysis.texts import text_facts
from embedkit.prepare import DROPPED_SCHEMA
from tests.support.strange_rows import ROWS, SOURCES, ordinary

__all__ = ["ordinary"]  # fixture

K = 10
COUNT = ROWS * len(SOURCES)


def neighbors_of(own: int = K, cosine: float = 0.5) -> RowNeighbors:
    """Neighbours of the ordinary rows: all have the row's source, but those of row 0 only `own`, the others beta.

    Cosines are 0.5 +- 0.02 by turns, so that the median of each source is 0.5 and its MAD 0.02. Those of row 0 are
    `cosine`, those of rows 3 and 6 are 0.5.
    """
    neighbors = np.array([[(row + 3 * step) % COUNT for step in range(1, K + 1)] for row in range(COUNT)], np.int32)
    neighbors[0, own:] += 1
    turns = np.array([0.02 if (row // 3) % 2 else -0.02 for row in range(COUNT)])
    turns[[3, 6]] = 0
    cosines = np.repeat((0.5 + turns)[:, None], K, axis=1).astype(np.float32)
    cosines[0] = cosine
    return RowNeighbors(np.arange(COUNT), neighbors, cosines, "exact")


@pytest.mark.parametrize(("own", "found"), [(0, 1), (1, 1), (2, 0)])
def test_a_stranger_has_one_neighbor_of_ten(ordinary: Merged, own: int, found: int) -> None:
    evidence = Evidence(text_facts(ordinary), neighbors=neighbors_of(own))
    assert find_findings(ordinary, evidence).counts["strangers"] == found


@pytest.mark.parametrize(("usual", "found"), [(7, 1), (6, 0)])
def test_strangers_are_of_sources_that_agree(ordinary: Merged, usual: int, found: int) -> None:
    neighbors = neighbors_of(0)
    others = np.arange(3, COUNT, 3)
    neighbors.neighbors[others, usual:] += 1
    evidence = Evidence(text_facts(ordinary), neighbors=neighbors)
    assert find_findings(ordinary, evidence).counts["strangers"] == found


@pytest.mark.parametrize(("z", "found"), [(4.99, 0), (5.01, 1)])
def test_an_outlier_has_five_deviations(ordinary: Merged, z: float, found: int) -> None:
    evidence = Evidence(text_facts(ordinary), neighbors=neighbors_of(cosine=0.5 - z * 1.4826 * 0.02))
    result = find_findings(ordinary, evidence)
    assert result.counts["outliers"] == found
    assert result.rows.filter(kind="outliers")["strength"].to_list() == pytest.approx([z] * found, abs=1e-4)


@pytest.mark.parametrize(("near", "found"), [(0.98, 1), (0.96, 1), (0.99, 0)])
def test_contamination_starts_at_a_cosine(ordinary: Merged, near: float, found: int) -> None:
    neighbors = neighbors_of()
    neighbors.neighbors[[0, 3], 0] += 1
    neighbors.cosines[[0, 3], 0] = 0.98
    evidence = Evidence(text_facts(ordinary), neighbors=neighbors)
    assert find_findings(ordinary, evidence, FindingOptions(near=near)).counts["contamination"] == found


@pytest.mark.parametrize(("rows", "found"), [([0], 0), ([0, 3], 1)])
def test_a_single_row_in_another_source_is_chance(ordinary: Merged, rows: list[int], found: int) -> None:
    neighbors = neighbors_of()
    neighbors.neighbors[rows, 0] = 1
    neighbors.cosines[rows, 0] = 0.99
    evidence = Evidence(text_facts(ordinary), neighbors=neighbors)
    assert find_findings(ordinary, evidence).counts["contamination"] == found


@pytest.mark.parametrize(("distance", "found"), [(5e-7, 1), (2e-6, 0)])
def test_the_same_vector_is_equal_to_rounding(ordinary: Merged, distance: float, found: int) -> None:
    neighbors = neighbors_of()
    neighbors.neighbors[3, 0], neighbors.cosines[3, 0] = 8, 1 - distance
    evidence = Evidence(text_facts(ordinary), neighbors=neighbors)
    assert find_findings(ordinary, evidence).counts["same_vector"] == found


@pytest.mark.parametrize(("less", "found"), [(0, 1), (1, 0)])
def test_a_tenth_of_unknown_tokens_is_many(ordinary: Merged, less: int, found: int) -> None:
    tokens = ordinary.rows["num_tokens"].to_numpy()
    unknown = np.zeros(COUNT, np.int32)
    unknown[7] = -(-tokens[7] // 10) - less
    evidence = Evidence(text_facts(ordinary), unknown=unknown)
    assert find_findings(ordinary, evidence).counts["unknown_tokens"] == found


@pytest.mark.parametrize(("dropped", "found"), [(ROWS, 1), (ROWS - 1, 0)])
def test_survivors_are_half_of_the_rows(ordinary: Merged, dropped: int, found: int) -> None:
    lines = pl.DataFrame([(0, "gamma", "too_long", 9)] * dropped, schema=DROPPED_SCHEMA, orient="row")
    evidence = Evidence(text_facts(ordinary), dropped=lines)
    assert find_findings(ordinary, evidence).counts["survivors"] == found


@pytest.mark.parametrize(("p_own", "found"), [(0.1, 1), (0.101, 0)])
def test_a_doubted_source_has_a_tenth(ordinary: Merged, p_own: float, found: int) -> None:
    doubted = pl.DataFrame({"id": [4], "p_own": [p_own], "predicted": ["alpha"]})
    assert find_findings(ordinary, Evidence(text_facts(ordinary), doubted=doubted)).counts["doubted_sources"] == found
