"""The numbers about distances equal those computed by hand."""

import numpy as np
import pytest

from embedkit.subset.record import FarthestAt, describe_distances, farthest_by_k


def test_distances_are_described_by_quantiles() -> None:
    cosines = np.array([1, 0.75, 0.5, 0.25, 0], np.float32)
    found = describe_distances(cosines)
    assert found is not None
    assert (found.farthest, found.mean) == (1.0, 0.5)
    assert found.quantiles == pytest.approx({"0.5": 0.5, "0.9": 0.9, "0.99": 0.99, "0.999": 0.999})
    assert describe_distances(cosines[:0]) is None


@pytest.mark.parametrize(
    ("rows", "steps"), [(1, [1]), (10, [10]), (11, [10, 11]), (31, [10, 30, 31]), (150, [10, 30, 100, 150])]
)
def test_the_farthest_row_is_the_one_that_comes_next(rows: int, steps: list[int]) -> None:
    distances = 1 / np.arange(1, rows + 1, dtype=np.float32)  # row number i has 1 / (i + 1)
    found = farthest_by_k(distances, 0.001)
    assert [one.k for one in found] == steps
    assert [one.farthest for one in found[:-1]] == pytest.approx([1 / (k + 1) for k in steps[:-1]])
    assert found[-1] == FarthestAt(k=rows, farthest=0.001)
