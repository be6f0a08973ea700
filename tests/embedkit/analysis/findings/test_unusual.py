"""Robust z-scores and lower bounds, beside plain Python and numbers from the literature."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.findings.unusual import MIN_ROWS, most_usual, robust_z, wilson_lower


def naive_z(values: list[float], sources: list[int], at: int, least: float) -> float:
    if len(values) < MIN_ROWS:
        return 0.0
    own = [value for value, source in zip(values, sources, strict=True) if source == sources[at]]
    own = own if len(own) >= MIN_ROWS else values

    def mad(numbers: list[float]) -> float:
        return statistics.median(abs(number - statistics.median(numbers)) for number in numbers)

    scale = 1.4826 * max(mad(own), mad(values) / 4, least)
    return (values[at] - statistics.median(own)) / scale


@given(
    st.lists(
        st.tuples(st.floats(-100, 100, allow_subnormal=False), st.sampled_from([0, 0, 0, 1, 2])),
        min_size=1,
        max_size=70,
    )
)
def test_z_is_that_of_plain_python(rows: list[tuple[float, int]]) -> None:
    values, sources = [value for value, _ in rows], [source for _, source in rows]
    found = robust_z(np.array(values), np.array(sources), 0.01)
    for at in range(len(rows)):
        assert found.z[at] == pytest.approx(naive_z(values, sources, at, 0.01), rel=1e-9, abs=1e-9)
        assert found.is_small[at] == (sources.count(sources[at]) < MIN_ROWS)


def test_nothing_is_unusual_where_all_are_equal() -> None:
    assert robust_z(np.ones(50), np.zeros(50, int), 0.01).z.tolist() == [0.0] * 50
    assert len(robust_z(np.zeros(0), np.zeros(0, int), 0.01).z) == 0


def test_sources_of_equal_rows_do_not_exaggerate() -> None:
    """A source whose rows are all 1 has no MAD; a value of 1.1 is compared with a quarter of the MAD of all."""
    spread = np.linspace(0, 4, 101)  # MAD 1
    values = np.concatenate([np.ones(50), [1.1], spread])
    found = robust_z(values, np.array([0] * 51 + [1] * 101), 0.001)
    all_mad = np.median(np.abs(values - np.median(values)))
    assert found.z[50] == pytest.approx(0.1 / (1.4826 * all_mad / 4))


def test_wilson_lower_of_known_intervals() -> None:
    """Newcombe (1998, doi:10.1002/sim.777), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    found = wilson_lower(np.array([81, 15, 0, 1]), np.array([263, 148, 20, 29]))
    np.testing.assert_allclose(found, [0.2553, 0.0624, 0.0, 0.0061], atol=5e-5)


@given(st.integers(1, 10_000), st.data())
def test_lower_bound_is_below_its_share(of: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, of))
    (lower,) = wilson_lower(np.array([hits]), np.array([of]))
    assert 0 <= lower <= hits / of + 1e-12
    more = wilson_lower(np.array([10 * hits]), np.array([10 * of]))[0]
    assert more >= lower - 1e-12  # the same share of more rows


def test_the_usual_row_is_of_the_same_source() -> None:
    values = np.arange(60.0)
    sources = np.array([0] * 30 + [1] * 30)
    assert most_usual(values, sources, 0, 14.4) == 14
    assert most_usual(values, sources, 14, 14.4) == 15  # not the row itself
    assert most_usual(values, np.arange(60), 3, 40.0) == 40  # small sources are compared with all
    assert most_usual(np.ones(1), np.zeros(1, int), 0, 1.0) is None
