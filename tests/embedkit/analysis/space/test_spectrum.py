"""Numbers of the spectrum equal those computed by hand, and IsoScore the steps of its paper."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.components.pca import moments, pca, pca_from_moments
from embedkit.analysis.space.spectrum import Spectrum, describe_spectrum, effective_rank, isoscore, participation_ratio
from embedkit.errors import UsageError
from tests.support.merged_runs import merged_of

variances = st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=40).map(np.array)


def naive_isoscore(spectrum: np.ndarray) -> float:
    """Algorithm 1 of Rudman et al. 2022, from its fourth step on: the variances of the principal components."""
    n = len(spectrum)
    normalized = spectrum * math.sqrt(n) / math.sqrt(sum(v * v for v in spectrum))
    defect = math.sqrt(sum((v - 1) ** 2 for v in normalized)) / math.sqrt(2 * (n - math.sqrt(n)))
    share = (n - defect**2 * (n - math.sqrt(n))) ** 2 / n**2
    return (n * share - 1) / (n - 1)


@given(variances)
def test_numbers_equal_naive_loops(spectrum: np.ndarray) -> None:
    total = sum(spectrum)
    entropy = -sum(v / total * math.log(v / total) for v in spectrum)
    ratio = participation_ratio(spectrum)
    assert ratio == pytest.approx(total**2 / sum(v * v for v in spectrum))
    assert effective_rank(spectrum) == pytest.approx(math.exp(entropy))
    assert isoscore(ratio, len(spectrum)) == pytest.approx(naive_isoscore(spectrum), abs=1e-9)


@given(variances, st.floats(0.01, 100))
def test_the_unit_of_the_variances_does_not_matter(spectrum: np.ndarray, factor: float) -> None:
    assert participation_ratio(spectrum * factor) == pytest.approx(participation_ratio(spectrum))
    assert 1 - 1e-9 <= participation_ratio(spectrum) <= effective_rank(spectrum) + 1e-9 <= len(spectrum) + 2e-9


def test_planted_directions_are_counted(tmp_path: Path) -> None:
    """Corners of a box: variances 64, 16, 16 and 4, up to a common factor, and four directions without any."""
    corners = np.array([[a, b, c, d] for a in (-8, 8) for b in (-4, 4) for c in (-4, 4) for d in (-2, 2)])
    vectors = np.zeros((16, 8), np.float32)
    vectors[:, :4] = corners
    found = describe_spectrum(pca(merged_of(tmp_path / "a", vectors)))
    assert found.dim == 8
    assert found.components == ((0.5, 1), (0.9, 3), (0.95, 3), (0.99, 4))
    assert found.participation_ratio == pytest.approx(100**2 / (64**2 + 16**2 + 16**2 + 4**2))
    entropy = -(0.64 * math.log(0.64) + 2 * 0.16 * math.log(0.16) + 0.04 * math.log(0.04))
    assert found.effective_rank == pytest.approx(math.exp(entropy))
    assert found.isoscore == pytest.approx((100**2 / 4624 - 1) / 7)


def test_all_directions_alike_are_isotropic() -> None:
    found = describe_spectrum(pca_from_moments(moments([np.concatenate([np.eye(10), -np.eye(10)])], 10)))
    assert found.participation_ratio == pytest.approx(10)
    assert found.effective_rank == pytest.approx(10)
    assert found.isoscore == pytest.approx(1)


@pytest.mark.parametrize("variance", [0.1, 0.2, 0.3, 0.7, 1.1])
def test_a_share_is_reached_however_sums_are_rounded(variance: float) -> None:
    """Five of ten equal variances are half of them, and nine are nine tenths."""
    found = pca_from_moments(moments([np.concatenate([np.eye(10), -np.eye(10)])], 10))
    components = describe_spectrum(replace(found, spectrum=np.full(10, variance))).components
    assert components == ((0.5, 5), (0.9, 9), (0.95, 10), (0.99, 10))


@pytest.mark.parametrize("rows", [0, 1, 30])
def test_nothing_varies(rows: int) -> None:
    found = describe_spectrum(pca_from_moments(moments([np.ones((rows, 4))], 4)))
    assert found == Spectrum(4, None, None, None, ())


def test_one_number_per_vector() -> None:
    found = describe_spectrum(pca_from_moments(moments([np.array([[1.0], [2.0], [4.0]])], 1)))
    assert found == Spectrum(1, 1.0, 1.0, None, ((0.5, 1), (0.9, 1), (0.95, 1), (0.99, 1)))


def test_a_partial_spectrum_is_refused() -> None:
    with pytest.raises(UsageError, match="2 of 5 variances"):
        describe_spectrum(pca_from_moments(moments([np.eye(5)], 5), 2, whole_spectrum=False))
